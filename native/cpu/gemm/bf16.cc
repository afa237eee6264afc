#include "cpu/gemm/multiply.h"
#include "cpu/gemm/weight_grad.h"

namespace MF_CPU_NAMESPACE {
namespace {

// Calls f.template operator()<Word>(): pairs for vdpbf16ps where the processor has it, else f32 words.
template <typename F>
void dispatchWord(F&& f) {
#if defined(__AVX512F__)
  static const bool hasPairProduct = __builtin_cpu_supports("avx512bf16");
  if (hasPairProduct) return f.template operator()<WordBf16Pair>();
#endif
  f.template operator()<WordBf16Wide>();
}

template <typename Out>
void multiplyBf16(const Product<bf16, Out>& product) {
  dispatchWord([&]<typename M>() { multiply<M>(product); });
}
template <typename Out>
void weightGradBf16(const WeightGrad<bf16, Out>& grad) {
  dispatchWord([&]<typename M>() { weightGrad<M>(grad); });
}

}  // namespace

template <>
void multiplyGrouped(const Product<bf16, bf16>& product) {
  multiplyBf16(product);
}
template <>
void multiplyGrouped(const Product<bf16, float>& product) {
  multiplyBf16(product);
}
template <>
void weightGradGrouped(const WeightGrad<bf16, bf16>& grad) {
  weightGradBf16(grad);
}
template <>
void weightGradGrouped(const WeightGrad<bf16, float>& grad) {
  weightGradBf16(grad);
}

}  // namespace MF_CPU_NAMESPACE
