#pragma once
// Packing: panels [words, kTileColumns] of B for the micro-kernel, and rows of A where they can't be read in
// place.
#include "cpu/gemm/word.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace MF_CPU_NAMESPACE {
template <typename V, typename Mask>
inline V shuffle(V a, V b, Mask mask) {
#if defined(__clang__)
  V out;
  constexpr int n = sizeof(V) / sizeof(a[0]);
  for (int i = 0; i < n; ++i) out[i] = mask[i] < n ? a[mask[i]] : b[mask[i] - n];
  return out;
#else
  return __builtin_shuffle(a, b, mask);
#endif
}

// Fetches n neighbouring elements.
template <typename T>
inline void prefetchLine(const T* p, int64_t n) {
  for (int64_t j = 0; j < n; j += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(p + j);
}

// A square of words in registers: log2(lanes) rounds of interleaving row i with row i + lanes / 2.
template <typename M>
inline void transpose(typename M::WordVec (&v)[kWordLanes<M>]) {
  constexpr int n = kWordLanes<M>;
  typename M::Mask low, high;
  for (int i = 0; i < n; ++i) {
    low[i] = i / 2 + (i % 2) * n;
    high[i] = n / 2 + low[i];
  }
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
    typename M::WordVec t[n];
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) {
      t[2 * i] = shuffle(v[i], v[i + n / 2], low);
      t[2 * i + 1] = shuffle(v[i], v[i + n / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) v[i] = t[i];
  }
}

// lanes columns of word row k of a matrix with `elements` rows; `columns` are left.
template <typename M, typename RowAt>
inline typename M::WordVec acrossOf(int64_t k, int64_t elements, const RowAt& rowAt, int64_t column,
                                    int64_t columns) {
  using T = typename M::T;
  constexpr int lanes = kWordLanes<M>;
  const int64_t first = k * M::kElements, second = first + M::kElements - 1;
  const T* even = rowAt(first) + column;
  if (columns >= lanes && second < elements) return M::across(even, rowAt(second) + column);
  T evens[lanes] = {}, odds[lanes] = {};
  const int64_t n = columns < lanes ? columns : lanes;
  for (int64_t j = 0; j < n; ++j) evens[j] = even[j];
  if (second > first && second < elements)
    for (int64_t j = 0; j < n; ++j) odds[j] = rowAt(second)[column + j];
  return M::across(evens, odds);
}

#if defined(__AVX512F__)
// Two rows of 32 bf16 as 32 pairs.
[[gnu::always_inline]] inline void interleave(const bf16* even, const bf16* odd, uint32_t* pairs) {
  alignas(64) static constexpr uint16_t order[2][32] = {
      {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
       8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
      {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55,
       24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
  const __m512i a = _mm512_loadu_si512(even), b = _mm512_loadu_si512(odd);
  for (int half = 0; half < 2; ++half)
    _mm512_storeu_si512(pairs + 16 * half, _mm512_permutex2var_epi16(a, _mm512_load_si512(order[half]), b));
}
#endif

// A row of a panel: word k of kTileColumns columns, `row` its first element, `stride` from one row to the
// next.
template <typename M>
[[gnu::always_inline]] inline void packRow(const typename M::T* row, int64_t stride,
                                           typename M::Word* panel) {
#if defined(__AVX512F__)
  if constexpr (M::kPair) {
    interleave(row, row + stride, panel);
    interleave(row + 32, row + stride + 32, panel + 32);
    return;
  }
#endif
#pragma GCC unroll 4
  for (int v = 0; v < kTileVectors; ++v)
    store(panel + v * kWordLanes<M>, M::across(row + v * kWordLanes<M>, row + stride + v * kWordLanes<M>));
}

// Rows far apart in memory defeat the hardware's prefetching: they are fetched this many rows ahead.
constexpr int64_t kRowsAhead = 16;

// Panels of a matrix whose rows run across the summed dimension: rowAt(k) is row k, at the first of
// `columns`.
template <typename M, typename RowAt>
inline void packRows(int64_t elements, int64_t columns, const RowAt& rowAt, typename M::Word* panel) {
  constexpr int lanes = kWordLanes<M>;
  const int64_t words = wordsOf<M>(elements);
  for (int64_t c = 0; c < columns; c += kTileColumns<M>) {
    for (int64_t k = 0; k < words; ++k) {
      for (int64_t ahead = (k + kRowsAhead) * M::kElements, r = 0; r < M::kElements; ++r)
        if (ahead + r < elements) prefetchLine(rowAt(ahead + r) + c, kTileColumns<M>);
      if (c + kTileColumns<M> <= columns && (k + 1) * M::kElements <= elements) {
        const auto* row = rowAt(k * M::kElements) + c;
        packRow<M>(row, rowAt((k + 1) * M::kElements - 1) + c - row, panel);
        panel += kTileColumns<M>;
        continue;
      }
      for (int v = 0; v < kTileVectors; ++v) {
        const int64_t column = c + v * lanes;
        store(panel + v * lanes, column < columns ? acrossOf<M>(k, elements, rowAt, column, columns - column)
                                                  : typename M::WordVec{});
      }
      panel += kTileColumns<M>;
    }
  }
}

// Panels of a matrix whose rows run along the summed dimension: lineAt(c) is column c of the panels.
template <typename M, typename LineAt>
inline void packLines(int64_t elements, int64_t columns, const LineAt& lineAt, typename M::Word* panel) {
  constexpr int lanes = kWordLanes<M>;
  const int64_t words = wordsOf<M>(elements);
  for (int64_t c = 0; c < columns; c += kTileColumns<M>) {
    for (int64_t c0 = c; c0 < c + kTileColumns<M>; c0 += lanes) {
      for (int64_t k = 0; k < words; k += lanes) {
        typename M::WordVec v[lanes];
        const int64_t element = k * M::kElements;
        for (int i = 0; i < lanes; ++i) {
          v[i] = c0 + i < columns ? lineOf<M>(lineAt(c0 + i) + element, elements - element)
                                  : typename M::WordVec{};
          if (c0 + i < columns) __builtin_prefetch(lineAt(c0 + i) + element + 4 * lanes * M::kElements);
        }
        transpose<M>(v);
        typename M::Word* out = panel + k * kTileColumns<M> + (c0 - c);
        const int64_t n = words - k < lanes ? words - k : lanes;
        for (int64_t i = 0; i < n; ++i) store(out + i * kTileColumns<M>, v[i]);
      }
    }
    panel += words * kTileColumns<M>;
  }
}

// The transpose of a matrix whose rows run across the summed dimension: out [columns, stride], words
// zero-padded to a whole vector.
template <typename M, typename RowAt>
inline void packTransposed(int64_t elements, int64_t columns, const RowAt& rowAt, typename M::Word* out,
                           int64_t stride) {
  constexpr int lanes = kWordLanes<M>;
  const int64_t words = wordsOf<M>(elements);
  for (int64_t k = 0; k < words; k += lanes) {
    for (int64_t c = 0; c < columns; c += lanes) {
      typename M::WordVec v[lanes];
      for (int i = 0; i < lanes; ++i) {
        v[i] = k + i < words ? acrossOf<M>(k + i, elements, rowAt, c, columns - c) : typename M::WordVec{};
        for (int64_t ahead = (k + lanes + i) * M::kElements, r = 0; r < M::kElements; ++r)
          if (ahead + r < elements) __builtin_prefetch(rowAt(ahead + r) + c);
      }
      transpose<M>(v);
      const int64_t n = columns - c < lanes ? columns - c : lanes;
      for (int64_t i = 0; i < n; ++i) store(out + (c + i) * stride + k, v[i]);
    }
  }
}

// One row of `elements` as words, zero-padded to a whole vector.
template <typename M>
inline void packLine(int64_t elements, const typename M::T* row, typename M::Word* out) {
  constexpr int64_t whole = kWordLanes<M> * M::kElements;
  for (int64_t i = 0; i < elements; i += whole, out += kWordLanes<M>)
    store(out, lineOf<M>(row + i, elements - i));
}

}  // namespace MF_CPU_NAMESPACE
