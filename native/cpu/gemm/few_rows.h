#pragma once
// Products with few rows per expert (decoding): the weights are read once, in the order in which they lie,
// and never packed. A memory-bound path: bf16 is widened to f32 on the way. Each thread reads one stretch
// from end to end, which the processor's own prefetching does best: instructions that prefetch slow it down.
#include <utility>

#include "cpu/gemm/pack.h"
#include "cpu/gemm/product.h"
#include "cpu/parallel.h"

namespace MF_CPU_NAMESPACE {
constexpr int64_t kMostFewRows = 10;
constexpr int64_t kDotColumns = 64;  // columns per task of [out, in] weights
constexpr int64_t kStreamSteps = 4;  // rows of [in, out] weights in one sweep

// Rows [k, kEnd) and some columns of [in, out] weights.
struct Piece {
  int64_t column, columns, k, kEnd;
};

// forTasks for tasks that stream neighbouring memory.
template <typename Body>
inline void forTaskShares(int64_t tasks, int64_t multiplyAdds, Body&& body) {
  if (multiplyAdds < (1 << 16)) return forTasks(tasks, 0, body);
  forShares(tasks, body);
}

// Up to how many rows this path is faster than packing, measured with weights in memory.
template <typename T>
constexpr int64_t fewRows(bool transposeW) {
  return sizeof(T) == 2 ? (transposeW ? 4 : 8) : (transposeW ? 8 : kMostFewRows);
}

// sums[r, :] += sum over S steps of x[r][k + s] * w[s, :], in rising s.
template <typename M, int R, int S>
inline void addSteps(const typename M::T* const* x, int64_t k, const typename M::T* w, int64_t stride,
                     int64_t columns, typename M::Acc* sums, int64_t sumsStride) {
  using Vec = typename M::AccVec;
  constexpr int lanes = kWordLanes<M>;
  Vec factor[R][S];
  for (int r = 0; r < R; ++r)
    for (int s = 0; s < S; ++s) factor[r][s] = static_cast<typename M::Acc>(x[r][k + s]) - Vec{};
  for (int64_t j = 0; j < columns; j += lanes) {
    Vec row[S];
    for (int s = 0; s < S; ++s) {
      row[s] = lineOf<M>(w + s * stride + j, columns - j);
      if (R > 1)
        __builtin_prefetch(reinterpret_cast<const char*>(w + j) +
                           (s + 2 * kStreamSteps) * stride * sizeof(*w));
    }
    for (int r = 0; r < R; ++r) {
      Vec sum = load<Vec>(sums + r * sumsStride + j);
      for (int s = 0; s < S; ++s) sum += factor[r][s] * row[s];
      store(sums + r * sumsStride + j, sum);
    }
  }
}

template <typename M, int S>
inline void addStepsTo(int64_t rows, const typename M::T* const* x, int64_t k, const typename M::T* w,
                       int64_t stride, int64_t columns, typename M::Acc* sums, int64_t sumsStride) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    addSteps<M, 4, S>(x + r, k, w, stride, columns, sums + r * sumsStride, sumsStride);
  for (; r + 2 <= rows; r += 2)
    addSteps<M, 2, S>(x + r, k, w, stride, columns, sums + r * sumsStride, sumsStride);
  for (; r < rows; ++r) addSteps<M, 1, S>(x + r, k, w, stride, columns, sums + r * sumsStride, sumsStride);
}

// sums [rows, stride] += x of the span's rows times a piece of w [in, out].
template <typename M, typename Out>
inline void streamRows(const Product<typename M::T, Out>& p, const Span& span, const Piece& piece,
                       typename M::Acc* sums, int64_t stride) {
  using T = typename M::T;
  const int64_t rows = span.rows(), width = p.width(), columns = piece.columns;
  const T* x[kMostFewRows];
  for (int64_t r = 0; r < rows; ++r) x[r] = p.x[span.begin + r];
  const T* w = p.weight(span.expert) + piece.column;
  int64_t k = piece.k;
  for (; k + kStreamSteps <= piece.kEnd; k += kStreamSteps)
    addStepsTo<M, kStreamSteps>(rows, x, k, w + k * width, width, columns, sums, stride);
  for (; k < piece.kEnd; ++k) addStepsTo<M, 1>(rows, x, k, w + k * width, width, columns, sums, stride);
}

template <typename Vec, int... I>
inline auto lowerPlusUpper(Vec v, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(v, v, I...) + __builtin_shufflevector(v, v, (I + int{sizeof...(I)})...);
}

// The sum of a vector's lanes, halves first: in registers, or it would take as long as a short row's
// products.
template <typename Acc, typename Vec>
inline Acc sumLanes(Vec v) {
  constexpr int lanes = sizeof(Vec) / sizeof(Acc);
  if constexpr (lanes > 4)
    return sumLanes<Acc>(lowerPlusUpper(v, std::make_integer_sequence<int, lanes / 2>()));
  else if constexpr (lanes == 4)
    return (v[0] + v[2]) + (v[1] + v[3]);
  else
    return v[0] + v[1];
}

// sums[r * sumsStride + c] = x[r] . w[c] for R rows and C columns.
template <typename M, int R, int C>
inline void dotTile(int64_t in, const typename M::T* const* x, const typename M::T* w, typename M::Acc* sums,
                    int64_t sumsStride) {
  using Vec = typename M::AccVec;
  constexpr int lanes = kWordLanes<M>;
  Vec sum[R][C] = {};
  int64_t k = 0;
  const auto step = [&](auto&& lineAt) {
    Vec column[C];
    for (int c = 0; c < C; ++c) column[c] = lineAt(w + c * in + k);
    for (int r = 0; r < R; ++r) {
      const Vec row = lineAt(x[r] + k);
      for (int c = 0; c < C; ++c) sum[r][c] += row * column[c];
    }
  };
  for (; k + lanes <= in; k += lanes) step([](const typename M::T* line) { return M::line(line); });
  if (k < in) step([&](const typename M::T* line) { return lineOf<M>(line, in - k); });
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sums[r * sumsStride + c] = sumLanes<typename M::Acc>(sum[r][c]);
}

template <typename M, int C>
inline void dotColumns(int64_t rows, int64_t in, const typename M::T* const* x, const typename M::T* w,
                       typename M::Acc* sums, int64_t stride) {
  int64_t r = 0;
  if constexpr (kVectorRegisters == 32)
    for (; r + 4 <= rows; r += 4) dotTile<M, 4, C>(in, x + r, w, sums + r * stride, stride);
  for (; r + 2 <= rows; r += 2) dotTile<M, 2, C>(in, x + r, w, sums + r * stride, stride);
  for (; r < rows; ++r) dotTile<M, 1, C>(in, x + r, w, sums + r * stride, stride);
}

// Columns [column, column + columns) of the span's rows, w [out, in].
template <typename M, typename Out>
inline void dotRows(const Product<typename M::T, Out>& p, const Span& span, int64_t column, int64_t columns) {
  using T = typename M::T;
  const int64_t rows = span.rows(), in = p.in();
  typename M::Acc sums[kMostFewRows][kDotColumns];
  const T* x[kMostFewRows];
  for (int64_t r = 0; r < rows; ++r) x[r] = p.x[span.begin + r];
  const T* w = p.weight(span.expert) + column * in;
  int64_t c = 0;
  for (; c + 4 <= columns; c += 4) dotColumns<M, 4>(rows, in, x, w + c * in, &sums[0][c], kDotColumns);
  for (; c < columns; ++c) dotColumns<M, 1>(rows, in, x, w + c * in, &sums[0][c], kDotColumns);
  finishRows(p, span.begin, rows, column, columns, sums[0], kDotColumns);
}

}  // namespace MF_CPU_NAMESPACE
