#pragma once
// out[s, :] = epilogue(x[s, :] w[e]). A task is some rows of one expert and a block of columns: it packs the
// weights of its columns pass by pass and runs the micro-kernel over all of its rows. A sum runs over rising
// k whatever the tasks are, so their sizes may follow the number of threads.
#include "cpu/gemm/few_pairs.h"
#include "cpu/gemm/few_rows.h"
#include "cpu/gemm/micro_kernel.h"

namespace MF_CPU_NAMESPACE {
constexpr int64_t kMostSpanRows = 2048;  // bounds the sums that wait between passes

// Columns of a task: as many as let a pass of their weights take a quarter of the L2 cache; another is for
// the weights that are fetched meanwhile.
template <typename M>
inline int64_t blockColumns(int64_t words) {
  constexpr int64_t tileColumns = kTileColumns<M>;
  const int64_t fit = kPassWords<M> / std::clamp<int64_t>(words, 1, kPassWords<M>);
  return std::min<int64_t>(fit, 4) * tileColumns;
}

// Whether the micro-kernel can read rows of x where they lie.
template <typename M>
inline bool wordsInPlace(const typename M::T* x, int64_t width) {
  if constexpr (M::kPair) return width % 2 == 0 && reinterpret_cast<uintptr_t>(x) % 4 == 0;
  return sizeof(typename M::T) == sizeof(typename M::Word);
}

// Some columns of a span, and the passes over its weights.
struct Block {
  Span span;
  int64_t column, columns;
};

// Fetches the weights of a pass within `steps` steps.
template <typename M, typename Out>
inline Fetch fetchPass(const Product<typename M::T, Out>& p, const Block& block, int64_t pass,
                       int64_t steps) {
  const int64_t in = p.in(), width = p.width(), first = pass * kPassWords<M> * M::kElements;
  const int64_t elements = std::min(in - first, kPassWords<M> * M::kElements);
  const typename M::T* w = p.weight(block.span.expert);
  if (p.transposeW) return Fetch(w + block.column * in + first, block.columns, elements, in, steps);
  return Fetch(w + first * width + block.column, elements, block.columns, width, steps);
}

template <typename M, typename Out>
inline void multiplyBlock(const Product<typename M::T, Out>& p, const Block& block, const Block* following) {
  using T = typename M::T;
  using Word = typename M::Word;
  using Acc = typename M::Acc;
  constexpr int64_t tileColumns = kTileColumns<M>;
  const Span& span = block.span;
  const int64_t column = block.column, columns = block.columns;
  const int64_t in = p.in(), width = p.width(), rows = span.rows();
  const int64_t words = wordsOf<M>(in), passes = std::max<int64_t>(1, divideUp(words, kPassWords<M>));
  const int64_t passWords = std::min(words, kPassWords<M>), rowStride = roundUp(passWords, kWordLanes<M>);
  const int64_t panels = divideUp(columns, tileColumns), tiles = divideUp(rows, kTileRows);
  const bool inPlace = wordsInPlace<M>(p.x.data, in);

  char* memory = static_cast<char*>(threadScratch(
      (panels * tileColumns * passWords + (inPlace ? 0 : kTileRows * rowStride)) * sizeof(Word) +
      (passes > 1 ? rows : kTileRows) * panels * tileColumns * sizeof(Acc) + rows * sizeof(T*)));
  Word* packed = reinterpret_cast<Word*>(memory);
  Word* copies = packed + panels * tileColumns * passWords;
  Acc* sums = reinterpret_cast<Acc*>(copies + (inPlace ? 0 : kTileRows * rowStride));
  const T** xRows =
      reinterpret_cast<const T**>(sums + (passes > 1 ? rows : kTileRows) * panels * tileColumns);
  for (int64_t r = 0; r < rows; ++r) xRows[r] = p.x[span.begin + r];
  const T* w = p.weight(span.expert) + column * (p.transposeW ? in : 1);

  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t first = pass * passWords * M::kElements;
    const int64_t elements = std::min(in - first, passWords * M::kElements), n = wordsOf<M>(elements);
    const bool last = pass + 1 == passes;
    // Whole rows and panels are packed by the first tile's kernel.
    const bool packs = !p.transposeW && columns % tileColumns == 0 && elements % M::kElements == 0;
    if (p.transposeW)
      packLines<M>(
          elements, columns, [&](int64_t c) { return w + c * in + first; }, packed);
    else if (!packs)
      packRows<M>(
          elements, columns, [&](int64_t k) { return w + (first + k) * width; }, packed);

    Fetch fetch;
    const int64_t steps = n * panels * tiles;
    if (!last)
      fetch = fetchPass<M>(p, block, pass + 1, steps);
    else if (following)
      fetch = fetchPass<M>(p, *following, 0, steps);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = rows * tile / tiles, count = rows * (tile + 1) / tiles - begin;
      const Word* x[kTileRows];
      for (int64_t r = 0; r < count; ++r) {
        const T* row = xRows[begin + r] + first;
        if (!inPlace) packLine<M>(elements, row, copies + r * rowStride);
        x[r] = inPlace ? reinterpret_cast<const Word*>(row) : copies + r * rowStride;
      }
      if (tile + 1 < tiles)
        for (int64_t r = begin + count; r < rows * (tile + 2) / tiles; ++r) fetchStart(xRows[r] + first);
      if (last) prefetchRows(p, span.begin + begin, count, column, columns);
      const MicroKernel<M> kernel = packs && tile == 0 ? microKernel<M, true>(count) : microKernel<M>(count);
      for (int64_t panel = 0; panel < panels; ++panel) {
        Acc* sum = sums + ((passes > 1 ? begin : 0) * panels + panel * count) * tileColumns;
        const int64_t offset = panel * tileColumns;
        kernel(n, x, {w + first * width + offset, width}, packed + n * offset, sum, pass > 0, fetch);
        if (!last) continue;
        finishRows(p, span.begin + begin, count, column + offset, std::min(tileColumns, columns - offset),
                   sum, tileColumns);
      }
    }
  }
}

// The unpacked path for words of type M: up to how many rows it is faster, and its task.
template <typename M>
struct FewRows {
  using Wide = WideWord<typename M::T>;
  static int64_t most(bool transposeW) { return fewRows<typename M::T>(transposeW); }
  static int64_t columns(bool transposeW) { return transposeW ? kDotColumns : kStreamColumns; }
  template <typename P>
  static void run(const P& p, const Span& span, int64_t column, int64_t columns) {
    p.transposeW ? dotRows<Wide>(p, span, column, columns) : streamRows<Wide>(p, span, column, columns);
  }
};
#if defined(__AVX512F__)
template <>
struct FewRows<WordBf16Pair> {
  static int64_t most(bool) { return kPairRows; }
  static int64_t columns(bool transposeW) { return transposeW ? kDotColumns : kPairStreamColumns; }
  template <typename P>
  static void run(const P& p, const Span& span, int64_t column, int64_t columns) {
    p.transposeW ? dotPairs(p, span, column, columns) : streamPairs(p, span, column, columns);
  }
};
#endif

template <typename M, typename Out>
inline void multiply(const Product<typename M::T, Out>& p) {
  using Few = FewRows<M>;
  const int64_t width = p.width(), most = Few::most(p.transposeW);
  const int64_t packedColumns = blockColumns<M>(wordsOf<M>(p.in())), fewColumns = Few::columns(p.transposeW);
  // About eight tasks per thread, each with rows enough to pay for packing.
  const int64_t wanted =
      divideUp(p.groups.rows * divideUp(width, 2 * kTileColumns<M>), Pool::instance().threads() * 8);
  std::vector<Block> blocks, few;
  for (const Span& span : spansByRows(p.groups, std::clamp<int64_t>(wanted, 96, kMostSpanRows), false)) {
    const bool isFew = p.groups.end(span.expert) - p.groups.begin(span.expert) <= most;
    const int64_t columns = isFew ? fewColumns : packedColumns;
    for (int64_t column = 0; column < width; column += columns)
      (isFew ? few : blocks).push_back({span, column, std::min(columns, width - column)});
  }
  const int64_t packed = static_cast<int64_t>(blocks.size()),
                tasks = packed + static_cast<int64_t>(few.size());
  const int64_t multiplyAdds = p.groups.rows * p.in() * width;
  const auto runFew = [&](int64_t task) {
    const Block& block = few[task];
    Few::run(p, block.span, block.column, block.columns);
  };
  if (packed == 0) return forTaskShares(tasks, multiplyAdds, runFew);
  forTasksAhead(tasks, multiplyAdds, [&](int64_t task, int64_t following) {
    if (task < packed) {
      multiplyBlock<M>(p, blocks[task], following >= 0 && following < packed ? &blocks[following] : nullptr);
    } else {
      runFew(task - packed);
    }
  });
}

}  // namespace MF_CPU_NAMESPACE
