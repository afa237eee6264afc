// What the backend is beside its ops: stream, memory, faults.
#include <algorithm>

#include "cuda/common.cuh"
#include "cuda/cuda_backend.h"
#include "cuda/fault.h"
#include "cuda/select.h"
#ifdef MF_CUDA_EMULATED
#include "cuda/emulation/capture.h"
#endif

namespace mf::cuda {

std::string describe(const Fault& f) {
  const std::string value = std::to_string(f.value), position = std::to_string(f.position);
  const std::string range = "0 to " + std::to_string(f.limit - 1);
  switch (f.kind) {
    case FaultKind::Id:
      return "id " + value + " at position " + position + " is outside the vocabulary, expected " + range;
    case FaultKind::Label:
      return "label " + value + " at position " + position + ", expected " + range + ", or -100 to ignore it";
    case FaultKind::Expert:
      return "experts holds " + value + ", expected " + range;
    case FaultKind::Offset:
      return "offsets[" + position + "] is " + value + ", expected rising numbers from 0 to " +
             std::to_string(f.limit);
    case FaultKind::Order:
      return "order[" + position + "] is " + value + ", expected 0 <= row < " + std::to_string(f.limit);
    case FaultKind::LogitsNaN:
      return "logits of row " + position + " hold NaN";
    case FaultKind::NoToken:
      return "logits of row " + position + " are all -infinity, no token is possible";
    case FaultKind::History:
      return "history holds " + value + ", expected -1 (padding) or " + range;
    case FaultKind::CacheRow:
      return "the first row is " + value + ", expected " + range;
    case FaultKind::Position:
      return "position is " + value + ", expected " + range;
    case FaultKind::None:
      break;
  }
  return "unknown fault";
}

CudaBackend::CudaBackend() : stream_(createStream()) {
  fault_ = static_cast<Fault*>(deviceMemory().allocate(sizeof(Fault)));
  if (!fault_) throw Error(ErrorKind::Memory, "out of memory on the CUDA device");
  fillBytes(stream_, fault_, 0, sizeof(Fault));
}

CudaBackend::~CudaBackend() {
  destroyStream(stream_);
  deviceMemory().release(fault_, sizeof(Fault));
  if (scratch_) deviceMemory().release(scratch_, scratchBytes_);
}

const char* CudaBackend::name() const {
  return "cuda";
}

void CudaBackend::write(void* device, const void* host, size_t bytes) {
  if (bytes > 0) copyToDevice(stream_, device, host, bytes);
}

void CudaBackend::read(void* host, const void* device, size_t bytes) {
  if (bytes > 0) copyToHost(stream_, host, device, bytes);
}

void CudaBackend::synchronize() {
  waitFor(stream_);
  throwFault();
}

void CudaBackend::throwFault() {
  Fault fault;
  copyToHost(stream_, &fault, fault_, sizeof fault);
  if (!fault.taken) return;
  fillBytes(stream_, fault_, 0, sizeof fault);
  throw Error(ErrorKind::Value, describe(fault));
}

void CudaBackend::raiseFault() {
#ifdef MF_CUDA_EMULATED
  if (!emulation::isCapturing()) throwFault();
#endif
}

namespace {
struct CapturedProgram {
  std::shared_ptr<Graph> graph;
  int64_t scratches = 0;  // of the backend when it was captured: its kernels know where the last one was
};
}  // namespace

// The first run is an ordinary one, in which scratch grows to what the program needs: no memory can be
// allocated while a graph is captured.
void CudaBackend::replay(std::shared_ptr<void>& captured, const std::function<void()>& run) {
  if (!captured) {
    captured = std::make_shared<CapturedProgram>();
    return run();
  }
  auto& program = *static_cast<CapturedProgram*>(captured.get());
  if (!program.graph || program.scratches != scratches_) {
    beginCapture(stream_);
    run();
    program.graph = endCapture(stream_);
    program.scratches = scratches_;
  }
  program.graph->launch(stream_);
  raiseFault();
}

void* CudaBackend::scratch(size_t bytes) {
  if (bytes <= scratchBytes_) return scratch_;
  const auto allocate = [&](size_t size) {
    scratchBytes_ = (size + 255) / 256 * 256;
    return deviceMemory().allocate(scratchBytes_);
  };
  const size_t ample = std::max(bytes, scratchBytes_ + scratchBytes_ / 2);
  waitFor(stream_);
  ++scratches_;
  if (scratch_) deviceMemory().release(scratch_, scratchBytes_);
  scratch_ = allocate(ample);
  if (!scratch_) scratch_ = allocate(bytes);
  if (!scratch_) {
    scratchBytes_ = 0;
    throw Error(ErrorKind::Memory,
                "out of memory on the CUDA device: " + std::to_string(bytes) + " bytes of scratch wanted");
  }
  return scratch_;
}

Devices devices() {
  Devices result;
  result.architectures = architectures();
  result.reason = reasonUnavailable();
  if (result.reason.empty()) result.names.push_back(deviceName());
  return result;
}

std::unique_ptr<Backend> createBackend() {
  const std::string reason = reasonUnavailable();
  if (!reason.empty()) throw Error(ErrorKind::Value, "device 'cuda' is not available: " + reason);
  return std::make_unique<CudaBackend>();
}

}  // namespace mf::cuda
