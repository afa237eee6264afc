#pragma once
// Dense products for ops that work through a long matrix in chunks of rows (the fused LM head). Row-major and
// contiguous, parallel inside; every element is one sum in a fixed order, whatever the number of threads.
// T is double, float or bf16; sums are in Accumulate<T>.
#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {
// y [rows, out] = x [rows, in] weight [out, in]^T
template <typename T>
void linearForward(int64_t rows, int64_t in, int64_t out, const T* x, const T* weight, Accumulate<T>* y);

// dx [rows, in] = dy [rows, out] weight [out, in]
template <typename T>
void linearInputGrad(int64_t rows, int64_t in, int64_t out, const T* dy, const T* weight, T* dx);

// dweight [out, in] = dy^T x, added to what dweight holds when `accumulate` is set. Dw is T or
// Accumulate<T>: sums over many chunks want the latter.
template <typename T, typename Dw>
void linearWeightGrad(int64_t rows, int64_t in, int64_t out, const T* x, const T* dy, Dw* dweight,
                      bool accumulate);

}  // namespace MF_CPU_NAMESPACE
