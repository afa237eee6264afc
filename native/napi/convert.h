#pragma once
// Turns C++ functions `R f(Context&, A...)` into JavaScript functions: arguments are converted by type,
// tensors go in and out as handles, and errors name op and argument.
#include <node_api.h>

#include <array>
#include <initializer_list>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "napi/environment.h"
#include "napi/functions.h"

namespace mf::napi {

struct OpEntry {
  const char* name;
  std::array<const char*, 24> arguments;
};

// Where a value stands, for messages.
struct Place {
  const OpEntry* op;
  size_t index;
  [[noreturn]] void fail(ErrorKind kind, const std::string& what) const {
    const char* argument = op->arguments[index];
    throw Error(kind, std::string(op->name) + ": " + (argument ? argument : "argument") + " " + what);
  }
};

inline bool isNullish(napi_env env, napi_value value) {
  napi_valuetype type;
  napi_typeof(env, value, &type);
  return type == napi_undefined || type == napi_null;
}

inline double toDouble(napi_env env, napi_value value, const Place& place, const char* expected) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok)
    place.fail(ErrorKind::Value, std::string("must be ") + expected);
  return number;
}

template <typename T, typename = void>
struct From;

template <>
struct From<double> {
  static double get(napi_env env, napi_value value, const Place& place) {
    return toDouble(env, value, place, "a number");
  }
};

template <>
struct From<int64_t> {
  static int64_t get(napi_env env, napi_value value, const Place& place) {
    const double number = toDouble(env, value, place, "an integer");
    if (!(number >= -9007199254740991.0 && number <= 9007199254740991.0) ||
        static_cast<double>(static_cast<int64_t>(number)) != number)
      place.fail(ErrorKind::Value, "is " + std::to_string(number) + ", expected an integer");
    return static_cast<int64_t>(number);
  }
};

template <typename T>
struct From<T, std::enable_if_t<std::is_enum_v<T>>> {
  static T get(napi_env env, napi_value value, const Place& place) {
    return static_cast<T>(From<int64_t>::get(env, value, place));
  }
};

template <>
struct From<bool> {
  static bool get(napi_env env, napi_value value, const Place& place) {
    bool flag;
    if (napi_get_value_bool(env, value, &flag) != napi_ok) place.fail(ErrorKind::Value, "must be a boolean");
    return flag;
  }
};

template <>
struct From<std::string> {
  static std::string get(napi_env env, napi_value value, const Place& place) {
    char text[256];
    size_t length;
    if (napi_get_value_string_utf8(env, value, text, sizeof text, &length) != napi_ok)
      place.fail(ErrorKind::Value, "must be a string");
    return std::string(text, length);
  }
};

template <>
struct From<Tensor> {
  static Tensor get(napi_env env, napi_value value, const Place& place) {
    double handle;
    if (napi_get_value_double(env, value, &handle) != napi_ok)
      place.fail(ErrorKind::Handle, "must be a tensor");
    try {
      return Environment::of(env).handles.get(handle);
    } catch (const Error& error) {
      place.fail(error.kind(), error.what());
    }
  }
};

template <typename T>
struct From<std::optional<T>> {
  static std::optional<T> get(napi_env env, napi_value value, const Place& place) {
    if (isNullish(env, value)) return std::nullopt;
    return From<T>::get(env, value, place);
  }
};

template <typename T>
struct From<std::vector<T>> {
  static std::vector<T> get(napi_env env, napi_value value, const Place& place) {
    uint32_t length;
    if (napi_get_array_length(env, value, &length) != napi_ok)
      place.fail(ErrorKind::Value, "must be an array");
    std::vector<T> items;
    items.reserve(length);
    for (uint32_t i = 0; i < length; ++i) {
      napi_value item;
      if (napi_get_element(env, value, i, &item) != napi_ok) place.fail(ErrorKind::Value, "must be an array");
      items.push_back(From<T>::get(env, item, place));
    }
    return items;
  }
};

template <>
struct From<Shape> {
  static Shape get(napi_env env, napi_value value, const Place& place) {
    const std::vector<int64_t> dims = From<std::vector<int64_t>>::get(env, value, place);
    if (dims.size() > kMaxRank) place.fail(ErrorKind::Shape, "has more than 6 dimensions");
    Shape shape;
    int64_t numel = 1;
    for (int64_t size : dims) {
      if (size < 0) place.fail(ErrorKind::Shape, "has a negative dimension");
      if (__builtin_mul_overflow(numel, size, &numel) || numel > (int64_t{1} << 48))
        place.fail(ErrorKind::Shape, "is too large");
      shape.dims[shape.rank++] = size;
    }
    return shape;
  }
};

template <>
struct From<RandomKey> {  // [seed, stream], each an integer below 2^53
  static RandomKey get(napi_env env, napi_value value, const Place& place) {
    const std::vector<int64_t> words = From<std::vector<int64_t>>::get(env, value, place);
    if (words.size() != 2) place.fail(ErrorKind::Value, "must be [seed, stream]");
    return {static_cast<uint64_t>(words[0]), static_cast<uint64_t>(words[1])};
  }
};

inline napi_value toValue(napi_env env, Tensor tensor) {
  napi_value value;
  napi_create_double(env, Environment::of(env).handles.add(std::move(tensor)), &value);
  return value;
}
inline napi_value toValue(napi_env env, double number) {
  napi_value value;
  napi_create_double(env, number, &value);
  return value;
}
template <typename T>
napi_value toValue(napi_env env, std::optional<T> item) {
  napi_value value;
  if (item) return toValue(env, std::move(*item));
  napi_get_null(env, &value);
  return value;
}
template <typename T>
napi_value toValue(napi_env env, std::vector<T> items) {
  napi_value array;
  napi_create_array_with_length(env, items.size(), &array);
  for (uint32_t i = 0; i < items.size(); ++i)
    napi_set_element(env, array, i, toValue(env, std::move(items[i])));
  return array;
}
template <typename... T>
napi_value toValue(napi_env env, std::tuple<T...> items) {
  napi_value array;
  napi_create_array_with_length(env, sizeof...(T), &array);
  uint32_t index = 0;
  std::apply(
      [&](auto&... item) { (napi_set_element(env, array, index++, toValue(env, std::move(item))), ...); },
      items);
  return array;
}

// Runs body and turns what it throws into a JavaScript error.
template <typename Body>
napi_value guarded(napi_env env, Body&& body) {
  Environment& environment = Environment::of(env);
  try {
    napi_value result = body(environment);
    environment.noteAllocations();
    return result;
  } catch (const Error& error) {
    return environment.throwError(error);
  } catch (const std::bad_alloc&) {
    return environment.throwError(Error(ErrorKind::Memory, "out of memory in the addon"));
  } catch (const std::exception& error) {
    return environment.throwError(Error(ErrorKind::Value, error.what()));
  }
}

template <auto F, typename R, typename... A, size_t... I>
napi_value invokeAs(napi_env env, napi_callback_info info, R (*)(Context&, A...), std::index_sequence<I...>) {
  constexpr size_t count = sizeof...(A);
  napi_value values[count + 1];
  size_t given = count;
  void* data;
  napi_get_cb_info(env, info, &given, values, nullptr, &data);
  const auto* op = static_cast<const OpEntry*>(data);
  return guarded(env, [&](Environment& environment) -> napi_value {
    std::tuple<std::decay_t<A>...> arguments{From<std::decay_t<A>>::get(env, values[I], Place{op, I})...};
    if constexpr (std::is_void_v<R>) {
      std::apply([&](auto&... argument) { F(environment.context, argument...); }, arguments);
      return nullptr;
    } else {
      return toValue(
          env, std::apply([&](auto&... argument) { return F(environment.context, argument...); }, arguments));
    }
  });
}

template <typename T>
struct Arity;
template <typename R, typename... A>
struct Arity<R (*)(Context&, A...)> : std::integral_constant<size_t, sizeof...(A)> {};

template <auto F>
napi_value invoke(napi_env env, napi_callback_info info) {
  return invokeAs<F>(env, info, F, std::make_index_sequence<Arity<decltype(F)>::value>{});
}

// Adds F to exports under op.name; op must live as long as the process.
template <auto F>
void define(napi_env env, napi_value exports, const OpEntry& op) {
  addFunction(env, exports, op.name, invoke<F>, const_cast<OpEntry*>(&op));
}

}  // namespace mf::napi
