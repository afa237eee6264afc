#pragma once
// tile [MR, kTileColumns] (+)= A B over `words` steps: A is MR rows of words wherever they lie, broadcast
// from memory; B is a panel [words, kTileColumns]. Every MR is a function of its own, not inlined: the
// compiler then keeps the tile in registers.
#include "cpu/gemm/word.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace MF_CPU_NAMESPACE {
template <typename M>
using MicroKernel = void (*)(int64_t words, const typename M::Word* const* rows,
                             const typename M::Word* panel, typename M::Acc* tile, bool accumulate);

template <typename M, int MR>
[[gnu::noinline]] void multiplyTile(int64_t words, const typename M::Word* const* rows,
                                    const typename M::Word* panel, typename M::Acc* tile, bool accumulate) {
  using Vec = typename M::AccVec;
  constexpr int lanes = kWordLanes<M>;
  const typename M::Word* a[MR];
  Vec sum[MR][kTileVectors];
  for (int r = 0; r < MR; ++r) {
    a[r] = rows[r];
    for (int v = 0; v < kTileVectors; ++v)
      sum[r][v] = accumulate ? load<Vec>(tile + (r * kTileVectors + v) * lanes) : Vec{};
  }
  for (int64_t k = 0; k < words; ++k) {
    Vec b[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) b[v] = load<Vec>(panel + v * lanes);
    for (int r = 0; r < MR; ++r)
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] += (a[r][k] - Vec{}) * b[v];
    panel += kTileColumns<M>;
  }
  for (int r = 0; r < MR; ++r)
    for (int v = 0; v < kTileVectors; ++v) store(tile + (r * kTileVectors + v) * lanes, sum[r][v]);
}

#if defined(__AVX512F__)
template <int MR>
[[gnu::noinline, gnu::target("avx512bf16")]] void multiplyPairTile(int64_t words, const uint32_t* const* rows,
                                                                   const uint32_t* panel, float* tile,
                                                                   bool accumulate) {
  const uint32_t* a[MR];
  __m512 sum[MR][kTileVectors];
  for (int r = 0; r < MR; ++r) {
    a[r] = rows[r];
    for (int v = 0; v < kTileVectors; ++v)
      sum[r][v] = accumulate ? _mm512_loadu_ps(tile + (r * kTileVectors + v) * 16) : _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < words; ++k) {
    __m512bh b[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v)
      b[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + v * 16));
    for (int r = 0; r < MR; ++r) {
      const __m512bh word = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[r][k])));
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], word, b[v]);
    }
    panel += kTileColumns<WordBf16Pair>;
  }
  for (int r = 0; r < MR; ++r)
    for (int v = 0; v < kTileVectors; ++v) _mm512_storeu_ps(tile + (r * kTileVectors + v) * 16, sum[r][v]);
}
#endif

// The kernel for 1 to kTileRows rows.
template <typename M>
inline MicroKernel<M> microKernel(int64_t rows) {
#if defined(__AVX512F__)
  if constexpr (M::kPair) {
    constexpr MicroKernel<M> kernels[] = {multiplyPairTile<1>, multiplyPairTile<2>, multiplyPairTile<3>,
                                          multiplyPairTile<4>, multiplyPairTile<5>, multiplyPairTile<6>};
    return kernels[rows - 1];
  } else
#endif
  {
    constexpr MicroKernel<M> kernels[] = {multiplyTile<M, 1>, multiplyTile<M, 2>, multiplyTile<M, 3>,
                                          multiplyTile<M, 4>, multiplyTile<M, 5>, multiplyTile<M, 6>};
    return kernels[rows - 1];
  }
}

}  // namespace MF_CPU_NAMESPACE
