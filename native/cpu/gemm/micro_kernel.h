#pragma once
// tile [MR, kTileColumns] (+)= A B over `words` steps: A is MR rows of words wherever they lie, broadcast
// from memory; B is a panel [words, kTileColumns]. Every MR is a function of its own, not inlined: the
// compiler then keeps the tile in registers. Meanwhile memory that is needed later is fetched or packed.
#include "cpu/gemm/pack_ahead.h"
#include "cpu/gemm/word.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace MF_CPU_NAMESPACE {
// Aside is what the kernel does between its steps, Fetch or PackAhead<M>; or StoreRows<M, Out>, which takes
// the sums from the registers.
template <typename M, typename Aside>
using MicroKernel = void (*)(int64_t words, const typename M::Word* const* rows,
                             const typename M::Word* panel, typename M::Acc* tile, bool accumulate,
                             Aside& aside);

template <typename M, int MR, typename Aside>
[[gnu::noinline]] void multiplyTile(int64_t words, const typename M::Word* const* rows,
                                    const typename M::Word* panel, typename M::Acc* tile, bool accumulate,
                                    Aside& aside) {
  using Vec = typename M::AccVec;
  constexpr int lanes = kWordLanes<M>;
  const typename M::Word* a[MR];
  Vec sum[MR][kTileVectors];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    a[r] = rows[r];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v)
      sum[r][v] = accumulate ? load<Vec>(tile + (r * kTileVectors + v) * lanes) : Vec{};
  }
  for (int64_t k = 0, end; k < words; k = end) {
    end = k + aside.step(words - k);
    for (int64_t i = k; i < end; ++i) {
      Vec b[kTileVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) b[v] = load<Vec>(panel + v * lanes);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kTileVectors; ++v) sum[r][v] += (a[r][i] - Vec{}) * b[v];
      panel += kTileColumns<M>;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    if constexpr (Aside::kStoresRows)
      aside.storeRow(r, sum[r]);
    else
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) store(tile + (r * kTileVectors + v) * lanes, sum[r][v]);
  }
}

#if defined(__AVX512F__)
template <int MR, typename Aside>
[[gnu::noinline, gnu::target("avx512bf16")]] void multiplyPairTile(int64_t words, const uint32_t* const* rows,
                                                                   const uint32_t* panel, float* tile,
                                                                   bool accumulate, Aside& aside) {
  const uint32_t* a[MR];
  __m512 sum[MR][kTileVectors];
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    a[r] = rows[r];
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v)
      sum[r][v] = accumulate ? _mm512_loadu_ps(tile + (r * kTileVectors + v) * 16) : _mm512_setzero_ps();
  }
  for (int64_t k = 0, end; k < words; k = end) {
    end = k + aside.step(words - k);
    for (int64_t i = k; i < end; ++i) {
      __m512i b[kTileVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) b[v] = _mm512_loadu_si512(panel + v * 16);
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r) {
        const __m512bh word = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[r][i])));
#pragma GCC unroll 4
        for (int v = 0; v < kTileVectors; ++v)
          sum[r][v] = _mm512_dpbf16_ps(sum[r][v], word, reinterpret_cast<__m512bh>(b[v]));
      }
      panel += kTileColumns<WordBf16Pair>;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r) {
    if constexpr (Aside::kStoresRows)
      aside.storeRow(r, sum[r]);
    else
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) _mm512_storeu_ps(tile + (r * kTileVectors + v) * 16, sum[r][v]);
  }
}
#endif

template <typename M, int MR, typename Aside>
constexpr MicroKernel<M, Aside> tileKernel() {
#if defined(__AVX512F__)
  if constexpr (M::kPair)
    return multiplyPairTile<MR, Aside>;
  else
#endif
    return multiplyTile<M, MR, Aside>;
}

// The kernel for 1 to kTileRows rows.
template <typename M, typename Aside>
inline MicroKernel<M, Aside> microKernel(int64_t rows) {
  constexpr MicroKernel<M, Aside> kernels[] = {tileKernel<M, 1, Aside>(), tileKernel<M, 2, Aside>(),
                                               tileKernel<M, 3, Aside>(), tileKernel<M, 4, Aside>(),
                                               tileKernel<M, 5, Aside>(), tileKernel<M, 6, Aside>()};
  return kernels[rows - 1];
}

}  // namespace MF_CPU_NAMESPACE
