#pragma once
// The two shapes of most kernels: a functor per element, and a block per row with reductions.
#include "cuda/common.cuh"

namespace mf::cuda {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 8192;  // of a loop over elements: each thread then takes several

template <typename F>
MF_KERNEL void elementKernel(int64_t n, F f) {
  const int64_t step = int64_t{gridBlocks()} * blockThreads();
  for (int64_t i = int64_t{blockId()} * blockThreads() + threadId(); i < n; i += step) f(i);
}

// Calls f(i) for every i of [0, n).
template <typename F>
void forElements(StreamHandle stream, int64_t n, const F& f) {
  const int64_t blocks = ceilDiv(n, kThreads);
  const int threads = n < kThreads ? static_cast<int>(ceilDiv(n, kWarpSize)) * kWarpSize : kThreads;
  launch(elementKernel<F>, {blocks < kMostBlocks ? blocks : kMostBlocks}, threads, 0, stream, n, f);
}

template <typename F>
MF_KERNEL void rowKernel(F f) {
  f(blockId());
}

// Calls f(row) in every thread of the row's block, for all rows.
template <typename F>
void forRows(StreamHandle stream, int64_t rows, int64_t width, const F& f) {
  const int threads = width <= 256 ? 32 : width <= 2048 ? 128 : 256;
  launch(rowKernel<F>, {rows}, threads, 0, stream, f);
}

struct Add {
  template <typename A>
  MF_DEVICE A operator()(A a, A b) const {
    return a + b;
  }
};
struct Max {  // NaN wins
  template <typename A>
  MF_DEVICE A operator()(A a, A b) const {
    return a > b || a != a ? a : b;
  }
};
struct Min {
  template <typename A>
  MF_DEVICE A operator()(A a, A b) const {
    return a < b ? a : b;
  }
};

// Combines the values of all lanes of the warp, in one fixed order; every lane gets the same bits.
template <typename A, typename Op>
MF_DEVICE A warpReduce(A value, Op op) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value = op(value, shuffleXor(value, mask));
  return value;
}
// The same of all threads of the block.
template <typename A, typename Op>
MF_DEVICE A blockReduce(A value, Op op) {
  value = warpReduce(value, op);
  if (blockThreads() == kWarpSize) return value;
  MF_SHARED(A, partial, 32);
  syncThreads();  // the array may still be read from the call before
  if (laneId() == 0) partial[warpId()] = value;
  syncThreads();
  A total = partial[0];
  for (int w = 1; w < blockThreads() / kWarpSize; ++w) total = op(total, partial[w]);
  return total;
}

// The sum over i of [0, n) of f(i), in every thread.
template <typename A, typename F>
MF_DEVICE A rowSum(int64_t n, F f) {
  A sum = A(0);
  for (int64_t i = threadId(); i < n; i += blockThreads()) sum += f(i);
  return blockReduce(sum, Add{});
}
template <typename A, typename F>
MF_DEVICE A rowMax(int64_t n, F f) {
  A most = A(-INFINITY);
  for (int64_t i = threadId(); i < n; i += blockThreads()) most = Max{}(f(i), most);
  return blockReduce(most, Max{});
}

template <typename F>
MF_DEVICE void forRow(int64_t n, F f) {
  for (int64_t i = threadId(); i < n; i += blockThreads()) f(i);
}

// Calls f.template operator()<A>() with float or double: the dtypes of sums, router and losses.
template <typename F>
decltype(auto) dispatchAccumulate(DType dtype, F&& f) {
  if (dtype == DType::f64) return f.template operator()<double>();
  return f.template operator()<float>();
}
template <typename F>
decltype(auto) dispatchInteger(DType dtype, F&& f) {
  if (dtype == DType::i64) return f.template operator()<int64_t>();
  return f.template operator()<int32_t>();
}

}  // namespace mf::cuda
