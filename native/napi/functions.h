// Functions that take their arguments as they come, rather than by the signature of an op.
#pragma once
#include <node_api.h>

namespace mf::napi {

template <size_t N>
struct Arguments {
  napi_value values[N];
  Arguments(napi_env env, napi_callback_info info) {
    size_t count = N;
    napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  }
};

// A handle of a tensor or of a program; -1 for what is no number.
inline double handleOf(napi_env env, napi_value value) {
  double handle = -1;
  napi_get_value_double(env, value, &handle);
  return handle;
}

inline void addFunction(napi_env env, napi_value exports, const char* name, napi_callback callback,
                        void* data = nullptr) {
  napi_value function;
  napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, data, &function);
  napi_set_named_property(env, exports, name, function);
}

}  // namespace mf::napi
