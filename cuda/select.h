#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"

namespace mf::cuda {

// The names of the devices at hand; empty where there is none, and `reason` then says why. The architectures
// that this binary has kernels for, separated by commas; none in emulation.
struct Devices {
  std::vector<std::string> names;
  std::string reason;
  std::string architectures;
};
Devices devices();

// On the first device; throws Error(Value) with the reason where there is none.
std::unique_ptr<Backend> createBackend();

}  // namespace mf::cuda
