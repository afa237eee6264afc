#pragma once
#include <functional>
#include <iterator>
#include <memory>
#include <string>

#include "core/error.h"
#include "core/stream.h"

namespace mf {

enum class Device : int { Cpu = 0, Cuda = 1 };

// The streams of one environment, one per device; that of CUDA is made when it is first asked for.
struct Context {
  std::unique_ptr<Stream> streams[2];
  std::function<std::unique_ptr<Stream>()> makeCuda;  // throws Error(Value) with the reason why it cannot
  bool poisonOutputs = false;  // tests: fill every fresh output with NaN before the op runs

  Stream& stream(Device device) {
    const auto index = static_cast<size_t>(device);
    if (index >= std::size(streams)) throw Error(ErrorKind::Value, "there is no such device");
    std::unique_ptr<Stream>& stream = streams[index];
    if (!stream && device == Device::Cuda && makeCuda) stream = makeCuda();
    if (!stream) throw Error(ErrorKind::Value, "there is no such device");
    return *stream;
  }
};

}  // namespace mf
