#pragma once
// The same products with few rows as few_rows.h, for bf16 with vdpbf16ps: neighbouring rows of [in, out]
// weights are interleaved in registers on their way from memory, [out, in] weights are pairs as they lie.
#include "cpu/gemm/few_rows.h"

#if defined(__AVX512F__)
#include <immintrin.h>

namespace MF_CPU_NAMESPACE {
#define MF_PAIRS [[gnu::target("avx512bf16")]]
constexpr int64_t kPairRows = 10;     // up to which rows this path is faster than packing
constexpr int64_t kPairColumns = 32;  // columns in one load of a row
constexpr int kPairSteps = 4;         // pairs of rows of [in, out] weights in one sweep

inline uint32_t pairAt(const bf16* x) {
  uint32_t word;
  std::memcpy(&word, x, sizeof word);
  return word;
}

// 32 elements, or fewer of a mask. Masked loads that miss the caches hold up those behind them: whole vectors
// go without.
template <bool Whole>
inline __m512i loadPairs(const bf16* p, __mmask32 mask) {
  return Whole ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi16(mask, p);
}

// Adds to the sums of 32 columns, or of those of a mask.
template <int R, int S, bool Whole>
MF_PAIRS inline void addPairsAt(const __m512bh (*factor)[S], const bf16* w, int64_t stride, bool odd,
                                __mmask32 mask, float* sums, int64_t sumsStride) {
  __m512 low[R], high[R];
  for (int r = 0; r < R; ++r) {
    low[r] = _mm512_loadu_ps(sums + r * sumsStride);
    high[r] = _mm512_loadu_ps(sums + r * sumsStride + 16);
  }
  for (int s = 0; s < S; ++s) {
    const bf16* row = w + 2 * s * stride;
    if (R > 1) {
      __builtin_prefetch(row + 4 * kPairSteps * stride);
      __builtin_prefetch(row + (4 * kPairSteps + 1) * stride);
    }
    const __m512i even = loadPairs<Whole>(row, mask);
    const __m512i second = odd ? _mm512_setzero_si512() : loadPairs<Whole>(row + stride, mask);
    const __m512bh a = reinterpret_cast<__m512bh>(_mm512_unpacklo_epi16(even, second));
    const __m512bh b = reinterpret_cast<__m512bh>(_mm512_unpackhi_epi16(even, second));
    for (int r = 0; r < R; ++r) {
      low[r] = _mm512_dpbf16_ps(low[r], factor[r][s], a);
      high[r] = _mm512_dpbf16_ps(high[r], factor[r][s], b);
    }
  }
  for (int r = 0; r < R; ++r) {
    _mm512_storeu_ps(sums + r * sumsStride, low[r]);
    _mm512_storeu_ps(sums + r * sumsStride + 16, high[r]);
  }
}

// sums[r, :] += words[r, s] times the pair of rows (2 s, 2 s + 1) of w, in rising s. The sums of 32 columns
// lie as unpacking leaves them: quads 0, 2, 4, 6, then 1, 3, 5, 7. The last pair has no second row when
// `odd`.
template <int R, int S>
MF_PAIRS inline void addPairs(const uint32_t (*words)[kPairSteps], const bf16* w, int64_t stride, bool odd,
                              int64_t columns, float* sums, int64_t sumsStride) {
  __m512bh factor[R][S];
  for (int r = 0; r < R; ++r)
    for (int s = 0; s < S; ++s)
      factor[r][s] = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(words[r][s])));
  int64_t j = 0;
  for (; j + kPairColumns <= columns; j += kPairColumns)
    addPairsAt<R, S, true>(factor, w + j, stride, odd, 0, sums + j, sumsStride);
  if (j < columns)
    addPairsAt<R, S, false>(factor, w + j, stride, odd, (__mmask32(1) << (columns - j)) - 1, sums + j,
                            sumsStride);
}

template <int S>
MF_PAIRS inline void addPairsTo(int64_t rows, const bf16* const* x, int64_t k, const bf16* w, int64_t stride,
                                bool odd, int64_t columns, float* sums, int64_t sumsStride) {
  uint32_t words[kPairRows][kPairSteps];
  for (int64_t r = 0; r < rows; ++r)
    for (int s = 0; s < S; ++s) words[r][s] = odd ? x[r][k].bits : pairAt(x[r] + k + 2 * s);
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4)
    addPairs<4, S>(words + r, w, stride, odd, columns, sums + r * sumsStride, sumsStride);
  for (; r + 2 <= rows; r += 2)
    addPairs<2, S>(words + r, w, stride, odd, columns, sums + r * sumsStride, sumsStride);
  for (; r < rows; ++r) addPairs<1, S>(words + r, w, stride, odd, columns, sums + r * sumsStride, sumsStride);
}

// Puts the quads of 32 sums back in the order of their columns.
MF_PAIRS inline void orderQuads(float* sums) {
  const __m512 low = _mm512_loadu_ps(sums), high = _mm512_loadu_ps(sums + 16);
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
  _mm512_storeu_ps(sums, _mm512_permutex2var_ps(low, first, high));
  _mm512_storeu_ps(sums + 16, _mm512_permutex2var_ps(low, second, high));
}

// sums [rows, stride] += x of the span's rows times a piece of w [in, out], which begins at an even row.
template <typename Out>
MF_PAIRS inline void streamPairs(const Product<bf16, Out>& p, const Span& span, const Piece& piece,
                                 float* sums, int64_t stride) {
  const int64_t rows = span.rows(), width = p.width(), columns = piece.columns;
  const bf16* x[kPairRows];
  for (int64_t r = 0; r < rows; ++r) x[r] = p.x[span.begin + r];
  const bf16* w = p.weight(span.expert) + piece.column;
  int64_t k = piece.k;
  for (; k + 2 * kPairSteps <= piece.kEnd; k += 2 * kPairSteps)
    addPairsTo<kPairSteps>(rows, x, k, w + k * width, width, false, columns, sums, stride);
  for (; k < piece.kEnd; k += 2)
    addPairsTo<1>(rows, x, k, w + k * width, width, k + 1 == piece.kEnd, columns, sums, stride);
}

// sum[r][c] += 32 products, or those of a mask, of x[r] and w[c] from k on.
template <int R, int C, bool Whole>
MF_PAIRS inline void dotPairsAt(int64_t in, int64_t k, const bf16* const* x, const bf16* w, __mmask32 mask,
                                __m512 (*sum)[C]) {
  __m512bh column[C];
  for (int c = 0; c < C; ++c) {
    if (R > 1) __builtin_prefetch(w + (c + C) * in + k);
    column[c] = reinterpret_cast<__m512bh>(loadPairs<Whole>(w + c * in + k, mask));
  }
  for (int r = 0; r < R; ++r) {
    const __m512bh row = reinterpret_cast<__m512bh>(loadPairs<Whole>(x[r] + k, mask));
    for (int c = 0; c < C; ++c) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], row, column[c]);
  }
}

// sums[r * sumsStride + c] = x[r] . w[c] for R rows and C columns.
template <int R, int C>
MF_PAIRS inline void dotPairTile(int64_t in, const bf16* const* x, const bf16* w, float* sums,
                                 int64_t sumsStride) {
  __m512 sum[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sum[r][c] = _mm512_setzero_ps();
  int64_t k = 0;
  for (; k + kPairColumns <= in; k += kPairColumns) dotPairsAt<R, C, true>(in, k, x, w, 0, sum);
  if (k < in) dotPairsAt<R, C, false>(in, k, x, w, (__mmask32(1) << (in - k)) - 1, sum);
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) sums[r * sumsStride + c] = sumLanes<float>(reinterpret_cast<VecF>(sum[r][c]));
}

template <int C>
MF_PAIRS inline void dotPairColumns(int64_t rows, int64_t in, const bf16* const* x, const bf16* w,
                                    float* sums, int64_t stride) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) dotPairTile<4, C>(in, x + r, w, sums + r * stride, stride);
  for (; r + 2 <= rows; r += 2) dotPairTile<2, C>(in, x + r, w, sums + r * stride, stride);
  for (; r < rows; ++r) dotPairTile<1, C>(in, x + r, w, sums + r * stride, stride);
}

// Columns [column, column + columns) of the span's rows, w [out, in].
template <typename Out>
MF_PAIRS inline void dotPairs(const Product<bf16, Out>& p, const Span& span, int64_t column,
                              int64_t columns) {
  const int64_t rows = span.rows(), in = p.in();
  float sums[kPairRows][kDotColumns];
  const bf16* x[kPairRows];
  for (int64_t r = 0; r < rows; ++r) x[r] = p.x[span.begin + r];
  const bf16* w = p.weight(span.expert) + column * in;
  int64_t c = 0;
  // One row's sums are few enough for neighbouring columns to overlap in the processor.
  for (; rows > 1 && c + 4 <= columns; c += 4)
    dotPairColumns<4>(rows, in, x, w + c * in, &sums[0][c], kDotColumns);
  for (; c < columns; ++c) dotPairColumns<1>(rows, in, x, w + c * in, &sums[0][c], kDotColumns);
  finishRows(p, span.begin, rows, column, columns, sums[0], kDotColumns);
}

#undef MF_PAIRS
}  // namespace MF_CPU_NAMESPACE
#endif
