// Ops whose kernels have not landed yet.
#include "core/error.h"
#include "cpu/cpu_backend.h"

MF_CPU_NAMESPACE {

[[noreturn]] static void absent(const char* op) { throw Error(ErrorKind::Kernel, std::string(op) + " is not there yet"); }

void CpuBackend::copy(const CopyArgs&) { absent("copy"); }
void CpuBackend::fill(const FillArgs&) { absent("fill"); }
void CpuBackend::random(const RandomArgs&) { absent("random"); }
void CpuBackend::unary(const UnaryArgs&) { absent("unary"); }
void CpuBackend::unaryBackward(const UnaryBackwardArgs&) { absent("unaryBackward"); }
void CpuBackend::binary(const BinaryArgs&) { absent("binary"); }
void CpuBackend::affine(const AffineArgs&) { absent("affine"); }
void CpuBackend::accumulate(const AccumulateArgs&) { absent("accumulate"); }
void CpuBackend::sum(const SumArgs&) { absent("sum"); }
void CpuBackend::mulRows(const MulRowsArgs&) { absent("mulRows"); }
void CpuBackend::rowDot(const RowDotArgs&) { absent("rowDot"); }
void CpuBackend::embedding(const EmbeddingArgs&) { absent("embedding"); }
void CpuBackend::embeddingBackward(const EmbeddingBackwardArgs&) { absent("embeddingBackward"); }
void CpuBackend::norm(const NormArgs&) { absent("norm"); }
void CpuBackend::normBackward(const NormBackwardArgs&) { absent("normBackward"); }
void CpuBackend::l2Normalize(const L2NormalizeArgs&) { absent("l2Normalize"); }
void CpuBackend::l2NormalizeBackward(const L2NormalizeBackwardArgs&) { absent("l2NormalizeBackward"); }
void CpuBackend::softmax(const SoftmaxArgs&) { absent("softmax"); }
void CpuBackend::softmaxBackward(const SoftmaxBackwardArgs&) { absent("softmaxBackward"); }
void CpuBackend::crossEntropy(const CrossEntropyArgs&) { absent("crossEntropy"); }
void CpuBackend::crossEntropyBackward(const CrossEntropyBackwardArgs&) { absent("crossEntropyBackward"); }
void CpuBackend::linearCrossEntropy(const LinearCrossEntropyArgs&) { absent("linearCrossEntropy"); }
void CpuBackend::dropout(const DropoutArgs&) { absent("dropout"); }
void CpuBackend::groupedGemm(const GroupedGemmArgs&) { absent("groupedGemm"); }
void CpuBackend::groupedGemmWeightGrad(const GroupedGemmWeightGradArgs&) { absent("groupedGemmWeightGrad"); }
void CpuBackend::attention(const AttentionArgs&) { absent("attention"); }
void CpuBackend::attentionBackward(const AttentionBackwardArgs&) { absent("attentionBackward"); }
int64_t CpuBackend::attentionWorkspace(AttentionKind, const AttentionShape&) const { absent("attentionWorkspace"); }
void CpuBackend::attentionWeights(const AttentionWeightsArgs&) { absent("attentionWeights"); }
void CpuBackend::rotary(const RotaryArgs&) { absent("rotary"); }
void CpuBackend::cacheAppend(const CacheAppendArgs&) { absent("cacheAppend"); }

}  // MF_CPU_NAMESPACE
