#pragma once
// out[s, :] = epilogue(x[s, :] w[e]). A task is some rows of one expert and a block of columns: it packs the
// weights of its columns pass by pass and runs the micro-kernel over all of its rows. A sum runs over rising
// k whatever the tasks are, so their sizes may follow the number of threads.
#include "cpu/gemm/few_pairs.h"
#include "cpu/gemm/few_rows.h"
#include "cpu/gemm/micro_kernel.h"

namespace MF_CPU_NAMESPACE {
// Columns of a task: as many as let a pass of their weights take half of the L2 cache, up to 256.
template <typename M>
inline int64_t blockColumns(int64_t words) {
  constexpr int64_t bytes = kVectorBytes == 64 ? 512 << 10 : 128 << 10;
  const int64_t pass = std::clamp<int64_t>(words, 1, kPassWords<M>);
  const int64_t fit = bytes / static_cast<int64_t>(sizeof(typename M::Word)) / pass;
  return std::clamp<int64_t>(fit / kTileColumns<M> * kTileColumns<M>, kTileColumns<M>, 256);
}
constexpr int64_t kMostSpanRows = 2048;  // bounds the sums that wait between passes

// Whether the micro-kernel can read rows of x where they lie.
template <typename M>
inline bool wordsInPlace(const typename M::T* x, int64_t width) {
  if constexpr (M::kPair) return width % 2 == 0 && reinterpret_cast<uintptr_t>(x) % 4 == 0;
  return sizeof(typename M::T) == sizeof(typename M::Word);
}

template <typename M, typename Out>
inline void multiplyBlock(const Product<typename M::T, Out>& p, const Span& span, int64_t column,
                          int64_t columns) {
  using T = typename M::T;
  using Word = typename M::Word;
  using Acc = typename M::Acc;
  constexpr int64_t tileColumns = kTileColumns<M>;
  const int64_t in = p.in(), width = p.width(), rows = span.rows();
  const int64_t words = wordsOf<M>(in), passes = std::max<int64_t>(1, divideUp(words, kPassWords<M>));
  const int64_t passWords = std::min(words, kPassWords<M>), rowStride = roundUp(passWords, kWordLanes<M>);
  const int64_t panels = divideUp(columns, tileColumns);
  const bool inPlace = wordsInPlace<M>(p.x.data, in);

  Word* packed = static_cast<Word*>(threadScratch(
      (panels * tileColumns * passWords + (inPlace ? 0 : kTileRows * rowStride)) * sizeof(Word) +
      (passes > 1 ? rows : kTileRows) * panels * tileColumns * sizeof(Acc)));
  Word* copies = packed + panels * tileColumns * passWords;
  Acc* sums = reinterpret_cast<Acc*>(copies + (inPlace ? 0 : kTileRows * rowStride));
  const T* w = p.weight(span.expert) + column * (p.transposeW ? in : 1);

  for (int64_t pass = 0; pass < passes; ++pass) {
    const int64_t first = pass * kPassWords<M> * M::kElements;
    const int64_t elements = std::min(in - first, kPassWords<M> * M::kElements), n = wordsOf<M>(elements);
    if (p.transposeW)
      packLines<M>(
          elements, columns, [&](int64_t c) { return w + c * in + first; }, packed);
    else
      packRows<M>(
          elements, columns, [&](int64_t k) { return w + (first + k) * width; }, packed);

    const int64_t tiles = divideUp(rows, kTileRows);
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = rows * tile / tiles, count = rows * (tile + 1) / tiles - begin;
      const Word* x[kTileRows];
      for (int64_t r = 0; r < count; ++r) {
        const T* row = p.x[span.begin + begin + r] + first;
        if (!inPlace) packLine<M>(elements, row, copies + r * rowStride);
        x[r] = inPlace ? reinterpret_cast<const Word*>(row) : copies + r * rowStride;
      }
      if (pass + 1 == passes) prefetchRows(p, span.begin + begin, count, column, columns);
      const MicroKernel<M> kernel = microKernel<M>(count);
      for (int64_t panel = 0; panel < panels; ++panel) {
        Acc* sum = sums + ((passes > 1 ? begin : 0) * panels + panel * count) * tileColumns;
        kernel(n, x, packed + panel * n * tileColumns, sum, pass > 0);
        if (pass + 1 < passes) continue;
        const int64_t offset = panel * tileColumns;
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
  const int64_t width = p.width(), block = blockColumns<M>(wordsOf<M>(p.in())),
                blocks = divideUp(width, block);
  const int64_t fewColumns = Few::columns(p.transposeW), fewBlocks = divideUp(width, fewColumns);
  const int64_t most = Few::most(p.transposeW);
  // About eight tasks per thread, each with rows enough to pay for packing.
  const int64_t wanted = divideUp(p.groups.rows * blocks, Pool::instance().threads() * 8);
  std::vector<Span> spans, few;
  for (const Span& span : spansByRows(p.groups, std::clamp<int64_t>(wanted, 96, kMostSpanRows), false))
    (p.groups.end(span.expert) - p.groups.begin(span.expert) <= most ? few : spans).push_back(span);

  const int64_t packedTasks = static_cast<int64_t>(spans.size()) * blocks;
  const int64_t tasks = packedTasks + static_cast<int64_t>(few.size()) * fewBlocks;
  forTasks(tasks, p.groups.rows * p.in() * width, [&](int64_t task) {
    if (task < packedTasks) {
      const int64_t column = task % blocks * block;
      multiplyBlock<M>(p, spans[task / blocks], column, std::min(block, width - column));
    } else {
      task -= packedTasks;
      const int64_t column = task % fewBlocks * fewColumns, columns = std::min(fewColumns, width - column);
      Few::run(p, few[task / fewBlocks], column, columns);
    }
  });
}

}  // namespace MF_CPU_NAMESPACE
