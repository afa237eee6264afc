// Ops whose kernels have not landed yet.
#include "core/error.h"
#include "cpu/cpu_backend.h"

MF_CPU_NAMESPACE {

[[noreturn]] static void absent(const char* op) { throw Error(ErrorKind::Kernel, std::string(op) + " is not there yet"); }

void CpuBackend::linearCrossEntropy(const LinearCrossEntropyArgs&) { absent("linearCrossEntropy"); }
void CpuBackend::groupedGemm(const GroupedGemmArgs&) { absent("groupedGemm"); }
void CpuBackend::groupedGemmWeightGrad(const GroupedGemmWeightGradArgs&) { absent("groupedGemmWeightGrad"); }
void CpuBackend::attention(const AttentionArgs&) { absent("attention"); }
void CpuBackend::attentionBackward(const AttentionBackwardArgs&) { absent("attentionBackward"); }
int64_t CpuBackend::attentionWorkspace(AttentionKind, const AttentionShape&) const { absent("attentionWorkspace"); }
void CpuBackend::attentionWeights(const AttentionWeightsArgs&) { absent("attentionWeights"); }
void CpuBackend::rotary(const RotaryArgs&) { absent("rotary"); }
void CpuBackend::cacheAppend(const CacheAppendArgs&) { absent("cacheAppend"); }

}  // MF_CPU_NAMESPACE
