#include "cpu/gemm/multiply.h"
#include "cpu/gemm/weight_grad.h"

namespace MF_CPU_NAMESPACE {
template <>
void multiplyGrouped(const Product<float, float>& product) {
  multiply<WordF32>(product);
}
template <>
void weightGradGrouped(const WeightGrad<float, float>& grad) {
  weightGrad<WordF32>(grad);
}

}  // namespace MF_CPU_NAMESPACE
