#pragma once
// tile [MR, kTileColumns] (+)= A B over `words` steps: A is MR rows of words wherever they lie, broadcast
// from memory; B is a panel [words, kTileColumns]. Every MR is a function of its own, not inlined: the
// compiler then keeps the tile in registers. Meanwhile memory that is needed later is fetched.
#include "cpu/gemm/fetch.h"
#include "cpu/gemm/word.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace MF_CPU_NAMESPACE {
// Where a kernel that packs finds B: rows of elements, `stride` apart.
template <typename M>
struct Unpacked {
  const typename M::T* rows;
  int64_t stride;
};

// With kPacks, B is read from `unpacked`, whole words and columns, and written to the panel on the way.
template <typename M>
using MicroKernel = void (*)(int64_t words, const typename M::Word* const* rows, Unpacked<M> unpacked,
                             typename M::Word* panel, typename M::Acc* tile, bool accumulate, Fetch& fetch);

template <typename M, int MR, bool kPacks>
[[gnu::noinline]] void multiplyTile(int64_t words, const typename M::Word* const* rows, Unpacked<M> unpacked,
                                    typename M::Word* panel, typename M::Acc* tile, bool accumulate,
                                    Fetch& fetch) {
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
    end = k + fetch.step(words - k);
    for (int64_t i = k; i < end; ++i) {
      Vec b[kTileVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) {
        if constexpr (kPacks) {
          b[v] = M::line(unpacked.rows + v * lanes);
          store(panel + v * lanes, b[v]);
        } else {
          b[v] = load<Vec>(panel + v * lanes);
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < kTileVectors; ++v) sum[r][v] += (a[r][i] - Vec{}) * b[v];
      panel += kTileColumns<M>;
      if constexpr (kPacks) unpacked.rows += unpacked.stride;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) store(tile + (r * kTileVectors + v) * lanes, sum[r][v]);
}

#if defined(__AVX512F__)
// Two rows of 32 bf16 as 32 pairs.
inline void interleave(const bf16* even, const bf16* odd, __m512i& first, __m512i& second) {
  alignas(64) static constexpr uint16_t low[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                   37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                   11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  const __m512i index = _mm512_load_si512(low), sixteen = _mm512_set1_epi16(16);
  const __m512i a = _mm512_loadu_si512(even), b = _mm512_loadu_si512(odd);
  first = _mm512_permutex2var_epi16(a, index, b);
  second = _mm512_permutex2var_epi16(a, _mm512_add_epi16(index, sixteen), b);
}

template <int MR, bool kPacks>
[[gnu::noinline, gnu::target("avx512bf16")]] void multiplyPairTile(int64_t words, const uint32_t* const* rows,
                                                                   Unpacked<WordBf16Pair> unpacked,
                                                                   uint32_t* panel, float* tile,
                                                                   bool accumulate, Fetch& fetch) {
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
    end = k + fetch.step(words - k);
    for (int64_t i = k; i < end; ++i) {
      __m512i b[kTileVectors];
      if constexpr (kPacks) {
        interleave(unpacked.rows, unpacked.rows + unpacked.stride, b[0], b[1]);
        interleave(unpacked.rows + 32, unpacked.rows + unpacked.stride + 32, b[2], b[3]);
        unpacked.rows += 2 * unpacked.stride;
      }
#pragma GCC unroll 4
      for (int v = 0; v < kTileVectors; ++v) {
        if constexpr (kPacks)
          _mm512_storeu_si512(panel + v * 16, b[v]);
        else
          b[v] = _mm512_loadu_si512(panel + v * 16);
      }
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
  for (int r = 0; r < MR; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) _mm512_storeu_ps(tile + (r * kTileVectors + v) * 16, sum[r][v]);
}
#endif

template <typename M, int MR, bool kPacks>
constexpr MicroKernel<M> tileKernel() {
#if defined(__AVX512F__)
  if constexpr (M::kPair)
    return multiplyPairTile<MR, kPacks>;
  else
#endif
    return multiplyTile<M, MR, kPacks>;
}

// The kernel for 1 to kTileRows rows.
template <typename M, bool kPacks = false>
inline MicroKernel<M> microKernel(int64_t rows) {
  constexpr MicroKernel<M> kernels[] = {tileKernel<M, 1, kPacks>(), tileKernel<M, 2, kPacks>(),
                                        tileKernel<M, 3, kPacks>(), tileKernel<M, 4, kPacks>(),
                                        tileKernel<M, 5, kPacks>(), tileKernel<M, 6, kPacks>()};
  return kernels[rows - 1];
}

}  // namespace MF_CPU_NAMESPACE
