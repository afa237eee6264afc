#include "cpu/gemm/gemm.h"
#include "cpu/gemm/product.h"

namespace MF_CPU_NAMESPACE {
template <typename T>
void linearForward(int64_t rows, int64_t in, int64_t out, const T* x, const T* weight, Accumulate<T>* y) {
  multiplyGrouped(Product<T, Accumulate<T>>{
      .groups = {1, rows, nullptr}, .x = {x, in}, .w = weight, .transposeW = true, .out = {y, out}});
}

template <typename T>
void linearInputGrad(int64_t rows, int64_t in, int64_t out, const T* dy, const T* weight, T* dx) {
  multiplyGrouped(Product<T, T>{
      .groups = {1, rows, nullptr}, .x = {dy, out}, .w = weight, .transposeW = false, .out = {dx, in}});
}

template <typename T, typename Dw>
void linearWeightGrad(int64_t rows, int64_t in, int64_t out, const T* x, const T* dy, Dw* dweight,
                      bool accumulate) {
  weightGradGrouped(WeightGrad<T, Dw>{
      .groups = {1, rows, nullptr}, .a = {dy, out}, .b = {x, in}, .dw = dweight, .accumulate = accumulate});
}

template void linearForward(int64_t, int64_t, int64_t, const double*, const double*, double*);
template void linearForward(int64_t, int64_t, int64_t, const float*, const float*, float*);
template void linearForward(int64_t, int64_t, int64_t, const bf16*, const bf16*, float*);
template void linearInputGrad(int64_t, int64_t, int64_t, const double*, const double*, double*);
template void linearInputGrad(int64_t, int64_t, int64_t, const float*, const float*, float*);
template void linearInputGrad(int64_t, int64_t, int64_t, const bf16*, const bf16*, bf16*);
template void linearWeightGrad(int64_t, int64_t, int64_t, const double*, const double*, double*, bool);
template void linearWeightGrad(int64_t, int64_t, int64_t, const float*, const float*, float*, bool);
template void linearWeightGrad(int64_t, int64_t, int64_t, const bf16*, const bf16*, bf16*, bool);
template void linearWeightGrad(int64_t, int64_t, int64_t, const bf16*, const bf16*, float*, bool);

}  // namespace MF_CPU_NAMESPACE
