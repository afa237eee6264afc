#pragma once
#include <memory>
#include <string>

#include "core/error.h"
#include "core/stream.h"

namespace mf {

enum class Device : int { Cpu = 0, Cuda = 1 };

// The streams of one environment, one per device.
struct Context {
  std::unique_ptr<Stream> streams[2];
  bool poisonOutputs = false;  // tests: fill every fresh output with NaN before the op runs

  Stream& stream(Device device) {
    Stream* stream = streams[static_cast<int>(device)].get();
    if (!stream)
      throw Error(ErrorKind::Value, "device 'cuda' is not available in this build or on this machine");
    return *stream;
  }
};

}  // namespace mf
