#pragma once
#include "core/backend.h"
#include "cuda/device.h"

namespace mf::cuda {

struct Fault;

// Enqueues kernels on one CUDA stream; nothing is read back but by read() and synchronize(). Like any backend
// it belongs to its stream's thread.
class CudaBackend final : public Backend {
 public:
  CudaBackend();
  ~CudaBackend() override;

  const char* name() const override;
  MemorySource& memory() override { return deviceMemory(); }
  void write(void* device, const void* host, size_t bytes) override;
  void read(void* host, const void* device, size_t bytes) override;
  void synchronize() override;
  bool canReplay() const override { return true; }
  void replay(std::shared_ptr<void>& captured, const std::function<void()>& run) override;

  void copy(const CopyArgs&) override;
  void fill(const FillArgs&) override;
  void random(const RandomArgs&) override;
  void unary(const UnaryArgs&) override;
  void unaryBackward(const UnaryBackwardArgs&) override;
  void binary(const BinaryArgs&) override;
  void affine(const AffineArgs&) override;
  void increment(const IncrementArgs&) override;
  void accumulate(const AccumulateArgs&) override;
  void sum(const SumArgs&) override;
  void expand(const ExpandArgs&) override;
  void mulRows(const MulRowsArgs&) override;
  void rowDot(const RowDotArgs&) override;
  void shiftLabels(const ShiftLabelsArgs&) override;
  void lastTokenRows(const LastTokenRowsArgs&) override;
  void embedding(const EmbeddingArgs&) override;
  void embeddingBackward(const EmbeddingBackwardArgs&) override;
  void norm(const NormArgs&) override;
  void normBackward(const NormBackwardArgs&) override;
  void l2Normalize(const L2NormalizeArgs&) override;
  void l2NormalizeBackward(const L2NormalizeBackwardArgs&) override;
  void softmax(const SoftmaxArgs&) override;
  void softmaxBackward(const SoftmaxBackwardArgs&) override;
  void crossEntropy(const CrossEntropyArgs&) override;
  void crossEntropyBackward(const CrossEntropyBackwardArgs&) override;
  void linearCrossEntropy(const LinearCrossEntropyArgs&) override;
  void dropout(const DropoutArgs&) override;
  void route(const RouteArgs&) override;
  void routePlan(const RoutePlanArgs&) override;
  void gatherGates(const GatherGatesArgs&) override;
  void gatherGatesBackward(const GatherGatesBackwardArgs&) override;
  void routerLoss(const RouterLossArgs&) override;
  void routerLossBackward(const RouterLossBackwardArgs&) override;
  void groupedGemm(const GroupedGemmArgs&) override;
  void groupedGemmWeightGrad(const GroupedGemmWeightGradArgs&) override;
  void quantize(const QuantizeArgs&) override;
  void quantizedGemm(const QuantizedGemmArgs&) override;
  void combine(const CombineArgs&) override;
  void combineBackward(const CombineBackwardArgs&) override;
  void attention(const AttentionArgs&) override;
  void attentionBackward(const AttentionBackwardArgs&) override;
  int64_t attentionWorkspace(const AttentionShape&, DType) const override;
  void attentionWeights(const AttentionWeightsArgs&) override;
  void rotary(const RotaryArgs&) override;
  void cacheAppend(const CacheAppendArgs&) override;
  void gradNorm(const GradNormArgs&) override;
  void clip(const ClipArgs&) override;
  void adamW(const AdamWArgs&) override;
  void sample(const SampleArgs&) override;

 private:
  // Device memory for one op, at least 256-byte aligned; the next op in the stream may use it again.
  void* scratch(size_t bytes);
  template <typename T>
  T* scratchOf(int64_t count) {
    return static_cast<T*>(scratch(static_cast<size_t>(count) * sizeof(T)));
  }
  // Called after kernels that may have filled in fault_: throws at once where that costs nothing (the
  // emulator), else it is thrown by the next synchronize().
  void raiseFault();
  void throwFault();

  StreamHandle stream_;
  Fault* fault_;  // on the device
  void* scratch_ = nullptr;
  size_t scratchBytes_ = 0;
  int64_t scratches_ = 0;  // how often it was allocated
};

}  // namespace mf::cuda
