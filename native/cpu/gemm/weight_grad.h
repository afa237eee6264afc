#pragma once
// dw[e] = sum over the expert's rows of a_row^T b_row. A task is a block of dw: it packs the transpose of its
// columns of a and its columns of b pass by pass, in rising order of rows.
#include <type_traits>

#include "cpu/gemm/micro_kernel.h"
#include "cpu/gemm/pack.h"
#include "cpu/gemm/product.h"

namespace MF_CPU_NAMESPACE {
constexpr int64_t kGradRows = 256, kGradColumns = 512;
template <typename M>
constexpr int64_t kGradWords = kPassWords<M> / 2;  // per pass

struct GradBlock {
  int64_t row, rows, column, columns;
};

constexpr int64_t kStreamedBytes = int64_t{32} << 20;  // gradients of this size and more

// Takes the finished sums of a tile from the registers to dw. Past the caches, whole lines at a time: what is
// written needs no reading first, and nobody reads it soon.
template <typename M, typename Out>
struct StoreRows {
  static constexpr bool kStoresRows = true;

  Out* dw;
  int64_t stride;
  bool past;

  int64_t step(int64_t left) const { return left; }

  [[gnu::always_inline]] void storeRow(
      int r, const typename M::AccVec* sums) const requires std::is_same_v<Out, typename M::Acc> {
    Out* out = dw + r * stride;
#pragma GCC unroll 4
    for (int v = 0; v < kTileVectors; ++v) {
#if defined(__AVX512F__)
      if constexpr (sizeof(Out) == 4)
        if (past) {
          _mm512_stream_ps(out + v * kWordLanes<M>, reinterpret_cast<__m512>(sums[v]));
          continue;
        }
#endif
      store(out + v * kWordLanes<M>, sums[v]);
    }
  }

#if defined(__AVX512F__)
  [[gnu::always_inline, gnu::target("avx512bf16")]] void storeRow(int r, const __m512* sums) const
      requires(M::kPair && sizeof(Out) == 2) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; v += 2) {
      const __m512i line = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(sums[v + 1], sums[v]));
      __m512i* out = reinterpret_cast<__m512i*>(dw + r * stride + v * kLanes);
      past ? _mm512_stream_si512(out, line) : _mm512_storeu_si512(out, line);
    }
  }
#endif
};

// Whether StoreRows can take these sums.
template <typename M, typename Out>
constexpr bool kStoresRows = std::is_same_v<Out, typename M::Acc> || (M::kPair && sizeof(Out) == 2);

// The last pass, where the registers' sums do not go to dw: sums (one tile, `count` rows) do.
template <typename T, typename Out>
inline void finishTile(const WeightGrad<T, Out>& g, Out* dw, int64_t count, int64_t columns, int64_t stride,
                       const Accumulate<T>* __restrict sums) {
  using Acc = Accumulate<T>;
  for (int64_t r = 0; r < count; ++r, dw += g.b.width, sums += stride) {
    Out* __restrict out = dw;
    if (g.accumulate)
      for (int64_t j = 0; j < columns; ++j) out[j] = static_cast<Out>(static_cast<Acc>(out[j]) + sums[j]);
    else
      for (int64_t j = 0; j < columns; ++j) out[j] = static_cast<Out>(sums[j]);
  }
}

template <typename M, typename Out>
inline void weightGradBlock(const WeightGrad<typename M::T, Out>& g, const Span& span,
                            const GradBlock& block) {
  using T = typename M::T;
  using Word = typename M::Word;
  using Acc = typename M::Acc;
  constexpr int64_t tileColumns = kTileColumns<M>, most = kGradWords<M> * M::kElements;
  const int64_t width = g.b.width;
  Out* dw = g.dw + (span.expert * g.a.width + block.row) * width + block.column;
  if (span.rows() == 0) {
    if (!g.accumulate)
      for (int64_t i = 0; i < block.rows; ++i)
        std::fill_n(dw + i * width, block.columns, static_cast<Out>(Acc(0)));
    return;
  }
  const int64_t passes = divideUp(span.rows(), most);
  const int64_t passWords = std::min(wordsOf<M>(span.rows()), kGradWords<M>);
  const int64_t stride = roundUp(passWords, kWordLanes<M>), panels = divideUp(block.columns, tileColumns);
  char* memory = static_cast<char*>(
      threadScratch(2 * most * sizeof(T*) + (block.rows * stride + passWords * tileColumns) * sizeof(Word) +
                    (passes > 1 ? block.rows * panels : kTileRows) * tileColumns * sizeof(Acc)));
  const T** aRows = reinterpret_cast<const T**>(memory);
  const T** bRows = aRows + most;
  Word* a = reinterpret_cast<Word*>(bRows + most);
  Word* b = a + block.rows * stride;
  Acc* sums = reinterpret_cast<Acc*>(b + passWords * tileColumns);

  const bool past =
      kVectorBytes == 64 && reinterpret_cast<uintptr_t>(g.dw) % kVectorBytes == 0 &&
      width * static_cast<int64_t>(sizeof(Out)) % kVectorBytes == 0 &&
      g.groups.experts * g.a.width * width * static_cast<int64_t>(sizeof(Out)) >= kStreamedBytes;
  const int64_t tiles = divideUp(block.rows, kTileRows);
  Fetch none;
  for (int64_t pass = 0; pass < passes; ++pass) {
    const bool last = pass + 1 == passes;
    const int64_t first = span.begin + pass * most, elements = std::min(most, span.end - first);
    const int64_t words = wordsOf<M>(elements);
    for (int64_t r = 0; r < elements; ++r) {
      aRows[r] = g.a[first + r] + block.row;
      bRows[r] = g.b[first + r] + block.column;
    }
    packTransposed<M>(
        elements, block.rows, [&](int64_t r) { return aRows[r]; }, a, stride);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t column = panel * tileColumns, columns = std::min(tileColumns, block.columns - column);
      packRows<M>(
          elements, columns, [&](int64_t r) { return bRows[r] + column; }, b);
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t begin = block.rows * tile / tiles, count = block.rows * (tile + 1) / tiles - begin;
        const Word* rows[kTileRows];
        for (int64_t r = 0; r < count; ++r) rows[r] = a + (begin + r) * stride;
        // Fetch what comes next: a share of the next panel, and the tile's place in dw.
        if (panel + 1 < panels)
          for (int64_t r = elements * tile / tiles; r < elements * (tile + 1) / tiles; ++r)
            prefetchLine(bRows[r] + column + tileColumns, tileColumns);
        Out* out = dw + begin * width + column;
        const bool stores = kStoresRows<M, Out> && last && !g.accumulate && columns == tileColumns;
        if (last && !(stores && past))
          for (int64_t r = 0; r < count; ++r) prefetchLine(out + r * width, columns);
        Acc* sum = sums + (passes > 1 ? (panel * block.rows + begin) * tileColumns : 0);
        if constexpr (kStoresRows<M, Out>) {
          if (stores) {
            StoreRows<M, Out> rowsToDw{out, width, past};
            microKernel<M, StoreRows<M, Out>>(count)(words, rows, b, sum, pass > 0, rowsToDw);
            continue;
          }
        }
        microKernel<M, Fetch>(count)(words, rows, b, sum, pass > 0, none);
        if (last) finishTile(g, out, count, columns, tileColumns, sum);
      }
    }
  }
#if defined(__AVX512F__)
  if (past) _mm_sfence();
#endif
}

template <typename M, typename Out>
inline void weightGrad(const WeightGrad<typename M::T, Out>& g) {
  const int64_t rowBlocks = divideUp(g.a.width, kGradRows), columnBlocks = divideUp(g.b.width, kGradColumns);
  if (rowBlocks * columnBlocks == 0) return;
  const int64_t blockRows = roundUp(divideUp(g.a.width, rowBlocks), kTileRows);
  const int64_t blockColumns = roundUp(divideUp(g.b.width, columnBlocks), kTileColumns<M>);
  const std::vector<Span> spans = spansByRows(g.groups, std::max<int64_t>(1, g.groups.rows), true);
  const int64_t blocks = rowBlocks * columnBlocks, size = g.a.width * g.b.width;
  forTasks(static_cast<int64_t>(spans.size()) * blocks, (g.groups.rows + g.groups.experts) * size,
           [&](int64_t task) {
             const int64_t row = task % blocks / columnBlocks * blockRows,
                           column = task % columnBlocks * blockColumns;
             const GradBlock block{row, std::min(blockRows, g.a.width - row), column,
                                   std::min(blockColumns, g.b.width - column)};
             if (block.rows > 0 && block.columns > 0) weightGradBlock<M>(g, spans[task / blocks], block);
           });
}

}  // namespace MF_CPU_NAMESPACE
