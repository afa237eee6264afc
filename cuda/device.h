#pragma once
// What the backend asks of the CUDA runtime. device.cu answers with it, emulation/device.cc without.
#include <cstddef>
#include <memory>
#include <string>

#include "core/allocator.h"

namespace mf::cuda {

#ifdef MF_CUDA_EMULATED
using StreamHandle = void*;
#else
using StreamHandle = struct CUstream_st*;
#endif

// Why there is no device to run on; empty when there is one.
std::string reasonUnavailable();
std::string deviceName();
std::string architectures();
int multiprocessors();
// Whether kernels with the instructions of sm_90a run: the device has them, and the binary was built for
// them.
bool hasWarpgroupProducts();

StreamHandle createStream();
void destroyStream(StreamHandle stream);
void waitFor(StreamHandle stream);
MemorySource& deviceMemory();
// In the order of the stream. Both return when host memory may be used again.
void copyToDevice(StreamHandle stream, void* device, const void* host, size_t bytes);
void copyToHost(StreamHandle stream, void* host, const void* device, size_t bytes);
void fillBytes(StreamHandle stream, void* device, int value, size_t bytes);

// Kernels and fills that are enqueued between beginCapture and endCapture do not run; each launch of the
// graph enqueues all of them at once.
class Graph {
 public:
  virtual ~Graph() = default;
  virtual void launch(StreamHandle stream) = 0;
};
void beginCapture(StreamHandle stream);
std::shared_ptr<Graph> endCapture(StreamHandle stream);

}  // namespace mf::cuda
