#include "cuda/device.h"

#include <cstring>

namespace mf::cuda {

std::string reasonUnavailable() {
  return "";
}
std::string deviceName() {
  return "emulated";
}
std::string architectures() {
  return "";
}
StreamHandle createStream() {
  return nullptr;
}
void destroyStream(StreamHandle) {}
void waitFor(StreamHandle) {}
MemorySource& deviceMemory() {
  return systemMemory();
}
void copyToDevice(StreamHandle, void* device, const void* host, size_t bytes) {
  std::memcpy(device, host, bytes);
}
void copyToHost(StreamHandle, void* host, const void* device, size_t bytes) {
  std::memcpy(host, device, bytes);
}
void fillBytes(StreamHandle, void* device, int value, size_t bytes) {
  std::memset(device, value, bytes);
}

}  // namespace mf::cuda
