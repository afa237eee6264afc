#include "cuda/device.h"

#include <cstdlib>
#include <cstring>
#include <mutex>

#include "cuda/emulation/capture.h"
#include "cuda/emulation/graph.h"

namespace mf::cuda {
namespace {

// Of the size that MODULEFORMER_EMULATION_MEMORY names, in bytes; without it as large as the system's.
class EmulatedMemory final : public MemorySource {
 public:
  EmulatedMemory() {
    if (const char* bytes = std::getenv("MODULEFORMER_EMULATION_MEMORY"))
      free_ = std::strtoull(bytes, nullptr, 10);
  }
  void* allocate(size_t bytes) override {
    emulation::refuseWhileCapturing("allocating memory");
    const std::lock_guard<std::mutex> guard(lock_);
    if (bytes > free_) return nullptr;
    void* data = systemMemory().allocate(bytes);
    if (data) free_ -= bytes;
    return data;
  }
  void release(void* data, size_t bytes) override {
    emulation::refuseWhileCapturing("freeing memory");
    const std::lock_guard<std::mutex> guard(lock_);
    systemMemory().release(data, bytes);
    free_ += bytes;
  }

 private:
  std::mutex lock_;
  size_t free_ = SIZE_MAX / 2;
};

}  // namespace

std::string reasonUnavailable() {
  return "";
}
std::string deviceName() {
  return "emulated";
}
std::string architectures() {
  return "";
}
// Few, so that a persistent block meets several tiles in small tests too.
int multiprocessors() {
  return 3;
}
// As on sm_90a, unless MODULEFORMER_EMULATION_WARPGROUPS is off.
bool hasWarpgroupProducts() {
  static const bool value = [] {
    const char* name = std::getenv("MODULEFORMER_EMULATION_WARPGROUPS");
    return !name || std::strcmp(name, "off") != 0;
  }();
  return value;
}
StreamHandle createStream() {
  return nullptr;
}
void destroyStream(StreamHandle) {}
void waitFor(StreamHandle) {
  emulation::refuseWhileCapturing("waiting for the stream");
}
MemorySource& deviceMemory() {
  static EmulatedMemory memory;
  return memory;
}
void copyToDevice(StreamHandle, void* device, const void* host, size_t bytes) {
  emulation::refuseWhileCapturing("copying from the host");
  std::memcpy(device, host, bytes);
}
void copyToHost(StreamHandle, void* host, const void* device, size_t bytes) {
  emulation::refuseWhileCapturing("copying to the host");
  std::memcpy(host, device, bytes);
}
void fillBytes(StreamHandle, void* device, int value, size_t bytes) {
  emulation::submit([=] { std::memset(device, value, bytes); });
}

}  // namespace mf::cuda
