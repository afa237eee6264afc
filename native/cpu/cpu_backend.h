#pragma once
// The CPU backend. This folder is compiled once per instruction set, each time in the namespace
// mf::cpu::MF_ISA: everything here, helpers included, must live in that namespace (open it with
// MF_CPU_NAMESPACE).
#include "core/backend.h"

#define MF_CPU_NAMESPACE mf::cpu::MF_ISA

namespace MF_CPU_NAMESPACE {
class CpuBackend final : public Backend {
 public:
  const char* name() const override;
  bool canReplay() const override { return true; }

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
};

}  // namespace MF_CPU_NAMESPACE
