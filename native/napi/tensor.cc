// Handles and their memory: dispose, shape, reading and writing.
#include "napi/convert.h"
#include "napi/functions.h"
#include "napi/registry.h"
#include "ops/call.h"

namespace mf::napi {
namespace {

Tensor tensorOf(napi_env env, napi_value value, const OpEntry& op) {
  return From<Tensor>::get(env, value, Place{&op, 0});
}

Stream& streamOf(Environment& environment, const Tensor& tensor) {
  for (auto& stream : environment.context.streams)
    if (stream && &stream->allocator() == tensor.storage()->owner) return *stream;
  throw Error(ErrorKind::Handle, "the tensor's device is gone");
}

struct Bytes {
  char* data = nullptr;
  size_t length = 0;
};

Bytes bytesOf(napi_env env, napi_value value, const char* op) {
  bool isTypedArray = false;
  napi_is_typedarray(env, value, &isTypedArray);
  if (!isTypedArray) throw Error(ErrorKind::Value, std::string(op) + ": data must be a TypedArray");
  napi_typedarray_type type;
  size_t length, offset;
  void* data;
  napi_value buffer;
  napi_get_typedarray_info(env, value, &type, &length, &data, &buffer, &offset);
  size_t width = 1;
  switch (type) {
    case napi_int16_array:
    case napi_uint16_array:
      width = 2;
      break;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array:
      width = 4;
      break;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array:
      width = 8;
      break;
    default:
      break;
  }
  return {static_cast<char*>(data), length * width};
}

// track(handle, owner): frees the tensor some time after `owner` was collected.
napi_value track(napi_env env, napi_callback_info info) {
  Arguments<2> a(env, info);
  Environment& environment = Environment::of(env);
  environment.handles.track(env, handleOf(env, a.values[0]), a.values[1]);
  return nullptr;
}

napi_value dispose(napi_env env, napi_callback_info info) {
  Arguments<1> a(env, info);
  Environment::of(env).handles.remove(env, handleOf(env, a.values[0]));
  return nullptr;
}

// alias(handle): another handle on the same memory.
napi_value alias(napi_env env, napi_callback_info info) {
  static const OpEntry op{"alias", {"x"}};
  Arguments<1> a(env, info);
  return guarded(env, [&](Environment&) { return toValue(env, tensorOf(env, a.values[0], op)); });
}

// describe(handle): [dtype, device, ...shape].
napi_value describe(napi_env env, napi_callback_info info) {
  static const OpEntry op{"describe", {"x"}};
  Arguments<1> a(env, info);
  return guarded(env, [&](Environment& environment) {
    const Tensor tensor = tensorOf(env, a.values[0], op);
    std::vector<double> words{static_cast<double>(tensor.dtype()), 0};
    for (size_t device = 0; device < std::size(environment.context.streams); ++device)
      if (environment.context.streams[device].get() == &streamOf(environment, tensor))
        words[1] = static_cast<double>(device);
    for (int i = 0; i < tensor.shape().rank; ++i) words.push_back(static_cast<double>(tensor.shape()[i]));
    return toValue(env, std::move(words));
  });
}

struct WriteCommand final : Command {
  char* target = nullptr;
  std::vector<char> bytes;
  void run(Backend& backend) override { backend.write(target, bytes.data(), bytes.size()); }
};

// write(handle, data, byteOffset): copies data into the tensor, in stream order. Only whole writes clear a
// failure.
napi_value write(napi_env env, napi_callback_info info) {
  static const OpEntry op{"write", {"x", "data", "byteOffset"}};
  Arguments<3> a(env, info);
  return guarded(env, [&](Environment& environment) -> napi_value {
    const Tensor tensor = tensorOf(env, a.values[0], op);
    const Bytes bytes = bytesOf(env, a.values[1], op.name);
    const int64_t offset = From<int64_t>::get(env, a.values[2], Place{&op, 2});
    if (offset < 0 || static_cast<size_t>(offset) > tensor.bytes() ||
        bytes.length > tensor.bytes() - static_cast<size_t>(offset))
      throw Error(ErrorKind::Shape, "write: " + std::to_string(bytes.length) + " bytes at " +
                                        std::to_string(offset) + " do not fit into " +
                                        std::to_string(tensor.bytes()));
    Storage* storage = tensor.storage();
    char* target = static_cast<char*>(tensor.view().data) + offset;
    const bool whole = bytes.length == tensor.bytes() && tensor.isWhole();
    Stream& stream = streamOf(environment, tensor);
    if (stream.idle() && !stream.recording() && bytes.length > 0) {
      stream.backend().write(target, bytes.data, bytes.length);
      if (whole) storage->poison = nullptr;
      return nullptr;
    }
    auto command = std::make_unique<WriteCommand>();
    command->op = op.name;
    command->target = target;
    command->bytes.assign(bytes.data, bytes.data + bytes.length);
    command->writes = {storage};
    if (!whole) command->reads = {storage};
    stream.enqueue(std::move(command));
    return nullptr;
  });
}

// read(handle, data, widen): a promise of data being filled; widen turns bf16 into Float32Array.
napi_value read(napi_env env, napi_callback_info info) {
  static const OpEntry op{"read", {"x", "data", "widen"}};
  Arguments<3> a(env, info);
  return guarded(env, [&](Environment& environment) -> napi_value {
    const Tensor tensor = tensorOf(env, a.values[0], op);
    const Bytes bytes = bytesOf(env, a.values[1], op.name);
    const bool widen = From<bool>::get(env, a.values[2], Place{&op, 2}) && tensor.dtype() == DType::bf16;
    const size_t expected = widen ? tensor.bytes() * 2 : tensor.bytes();
    if (bytes.length != expected)
      throw Error(ErrorKind::Shape, "read: data has " + std::to_string(bytes.length) + " bytes, expected " +
                                        std::to_string(expected));
    const void* source = tensor.view().data;
    const int64_t count = tensor.numel();
    Stream& stream = streamOf(environment, tensor);
    Backend& backend = stream.backend();
    std::function<void()> copy;
    if (widen)
      copy = [&backend, source, target = bytes.data, count] {
        std::vector<bf16> in(static_cast<size_t>(count));
        backend.read(in.data(), source, in.size() * sizeof(bf16));
        auto* out = reinterpret_cast<float*>(target);
        for (int64_t i = 0; i < count; ++i) out[i] = in[static_cast<size_t>(i)];
      };
    else
      copy = [&backend, source, bytes] {
        if (bytes.length > 0) backend.read(bytes.data, source, bytes.length);
      };
    return environment.wait(stream, {tensor.storage()}, a.values[1], std::move(copy));
  });
}

}  // namespace

void registerTensor(napi_env env, napi_value exports) {
  addFunction(env, exports, "track", track);
  addFunction(env, exports, "dispose", dispose);
  addFunction(env, exports, "alias", alias);
  addFunction(env, exports, "describe", describe);
  addFunction(env, exports, "write", write);
  addFunction(env, exports, "read", read);
}

}  // namespace mf::napi
