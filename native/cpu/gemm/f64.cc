#include "cpu/gemm/multiply.h"
#include "cpu/gemm/weight_grad.h"

namespace MF_CPU_NAMESPACE {
template <>
void multiplyGrouped(const Product<double, double>& product) {
  multiply<WordF64>(product);
}
template <>
void weightGradGrouped(const WeightGrad<double, double>& grad) {
  weightGrad<WordF64>(grad);
}

}  // namespace MF_CPU_NAMESPACE
