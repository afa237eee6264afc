#include "cuda/device.h"

#include "cuda/architectures.h"
#include "cuda/common.cuh"

namespace mf::cuda {
namespace {

class DeviceMemory final : public MemorySource {
 public:
  void* allocate(size_t bytes) override {
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it is told by the null pointer
      return nullptr;
    }
    check(status, "cudaMalloc");
    return data;
  }
  // Waits for the device: nothing that was enqueued uses the memory afterwards.
  void release(void* data, size_t) override { cudaFree(data); }
};

class ExecutableGraph final : public Graph {
 public:
  explicit ExecutableGraph(cudaGraphExec_t graph) : graph_(graph) {}
  ExecutableGraph(const ExecutableGraph&) = delete;
  ExecutableGraph& operator=(const ExecutableGraph&) = delete;
  // One that is running is destroyed when it has ended.
  ~ExecutableGraph() override { cudaGraphExecDestroy(graph_); }
  void launch(StreamHandle stream) override { check(cudaGraphLaunch(graph_, stream), "launching a graph"); }

 private:
  cudaGraphExec_t graph_;
};

}  // namespace

std::string reasonUnavailable() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver) {
    int version = 0;
    cudaDriverGetVersion(&version);
    if (version == 0) return "no CUDA driver was found";
    return "the CUDA driver is too old: it supports CUDA " + std::to_string(version / 1000) + "." +
           std::to_string(version % 1000 / 10) + ", this addon needs " +
           std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
  }
  if (status != cudaSuccess) return cudaGetErrorString(status);
  if (count == 0) return "no CUDA device was found";
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  if (!runsOn(MF_CUDA_ARCHITECTURES, properties.major, properties.minor))
    return std::string(properties.name) + " has compute capability " + std::to_string(properties.major) +
           "." + std::to_string(properties.minor) + ", this addon has kernels for " MF_CUDA_ARCHITECTURES;
  return "";
}

std::string architectures() {
  return MF_CUDA_ARCHITECTURES;
}

std::string deviceName() {
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return properties.name;
}

int multiprocessors() {
  static const int count = [] {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
    return value;
  }();
  return count;
}

bool hasWarpgroupProducts() {
  static const bool value = [] {
    int major = 0, minor = 0;
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "cudaDeviceGetAttribute");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "cudaDeviceGetAttribute");
    return major == 9 && minor == 0 && hasSpecific(MF_CUDA_ARCHITECTURES, "90a");
  }();
  return value;
}

StreamHandle createStream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

void destroyStream(StreamHandle stream) {
  cudaStreamSynchronize(stream);
  cudaStreamDestroy(stream);
}

void waitFor(StreamHandle stream) {
  check(cudaStreamSynchronize(stream), "a kernel");
}

MemorySource& deviceMemory() {
  static DeviceMemory memory;
  return memory;
}

void copyToDevice(StreamHandle stream, void* device, const void* host, size_t bytes) {
  check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream), "copy to the device");
  waitFor(stream);
}

void copyToHost(StreamHandle stream, void* host, const void* device, size_t bytes) {
  check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream), "copy from the device");
  waitFor(stream);
}

void fillBytes(StreamHandle stream, void* device, int value, size_t bytes) {
  check(cudaMemsetAsync(device, value, bytes, stream), "fill");
}

void beginCapture(StreamHandle stream) {
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning a graph");
}

std::shared_ptr<Graph> endCapture(StreamHandle stream) {
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream, &graph), "capturing a graph");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiateWithFlags(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "instantiating a graph");
  return std::make_shared<ExecutableGraph>(executable);
}

}  // namespace mf::cuda
