#pragma once
// out[s, :] = epilogue(x[s, :] w[e]). A task is some rows of one expert and a block of columns: pass by pass
// the micro-kernel runs over all of its rows on packed weights. A sum runs over rising k whatever the tasks
// are, so their sizes may follow the number of threads.
#include "cpu/gemm/few_product.h"
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

// Some columns of a span.
struct Block {
  Span span;
  int64_t column, columns;
};

// What one thread multiplies, block after block. The panels of a pass are packed while the pass before it
// runs, be it of the block before: two buffers take turns.
template <typename M, typename Out>
class Multiplier {
 public:
  using T = typename M::T;
  using Word = typename M::Word;
  using Acc = typename M::Acc;

  // mostRows, mostColumns: those of the largest block.
  Multiplier(const Product<T, Out>& product, int64_t mostRows, int64_t mostColumns)
      : p_(product), mostRows_(mostRows), mostPanels_(divideUp(mostColumns, kTileColumns<M>)) {
    const int64_t words = wordsOf<M>(p_.in());
    passes_ = std::max<int64_t>(1, divideUp(words, kPassWords<M>));
    passWords_ = roundUp(divideUp(words, passes_), kWordLanes<M>);
    inPlace_ = wordsInPlace<M>(p_.x.data, p_.in());
  }

  // `following` is the block that comes next if it is to be packed meanwhile, or null.
  void run(const Block& block, const Block* following) {
    takeMemory();
    const int64_t rows = block.span.rows();
    for (int64_t r = 0; r < rows; ++r) xRows_[r] = p_.x[block.span.begin + r];
    const int64_t panels = divideUp(block.columns, kTileColumns<M>), tiles = divideUp(rows, kTileRows);
    for (int64_t pass = 0; pass < passes_; ++pass) {
      if (!packed_) pack(block, pass);
      packed_ = false;
      const Block* next = pass + 1 < passes_ ? &block : following;
      const int64_t nextPass = pass + 1 < passes_ ? pass + 1 : 0;
      const int64_t steps = wordsOf<M>(elementsIn(pass)) * panels * tiles;
      if (next && packsAhead(*next, nextPass)) {
        PackAhead<M> ahead(weights(*next, nextPass), p_.width(), wordsOf<M>(elementsIn(nextPass)),
                           next->columns, panels_[1], steps);
        runPass(block, pass, ahead);
        ahead.finish();
        packed_ = true;
        std::swap(panels_[0], panels_[1]);
      } else {
        Fetch fetch;
        if (next) fetch = fetchPass(*next, nextPass, steps);
        runPass(block, pass, fetch);
      }
    }
  }

 private:
  void takeMemory() {
    const int64_t rowStride = roundUp(passWords_, kWordLanes<M>), columns = mostPanels_ * kTileColumns<M>;
    const int64_t panelWords = columns * passWords_, copyWords = inPlace_ ? 0 : kTileRows * rowStride;
    const int64_t sums = (passes_ > 1 ? mostRows_ : kTileRows) * columns;
    char* memory = static_cast<char*>(threadScratch((2 * panelWords + copyWords) * sizeof(Word) +
                                                    sums * sizeof(Acc) + mostRows_ * sizeof(T*)));
    if (memory == memory_) return;
    memory_ = memory;
    packed_ = false;
    panels_[0] = reinterpret_cast<Word*>(memory);
    panels_[1] = panels_[0] + panelWords;
    copies_ = panels_[1] + panelWords;
    sums_ = reinterpret_cast<Acc*>(copies_ + copyWords);
    xRows_ = reinterpret_cast<const T**>(sums_ + sums);
  }

  int64_t elementsIn(int64_t pass) const {
    return std::min(p_.in() - pass * passWords_ * M::kElements, passWords_ * M::kElements);
  }

  const T* weights(const Block& block, int64_t pass) const {
    const int64_t first = pass * passWords_ * M::kElements;
    return p_.weight(block.span.expert) +
           (p_.transposeW ? block.column * p_.in() + first : first * p_.width() + block.column);
  }

  bool packsAhead(const Block& block, int64_t pass) const {
    return !p_.transposeW && block.columns % kTileColumns<M> == 0 && elementsIn(pass) % M::kElements == 0;
  }

  void pack(const Block& block, int64_t pass) {
    const T* w = weights(block, pass);
    if (p_.transposeW)
      packLines<M>(
          elementsIn(pass), block.columns, [&](int64_t c) { return w + c * p_.in(); }, panels_[0]);
    else
      packRows<M>(
          elementsIn(pass), block.columns, [&](int64_t k) { return w + k * p_.width(); }, panels_[0]);
  }

  Fetch fetchPass(const Block& block, int64_t pass, int64_t steps) const {
    const T* w = weights(block, pass);
    if (p_.transposeW) return Fetch(w, block.columns, elementsIn(pass), p_.in(), steps);
    return Fetch(w, elementsIn(pass), block.columns, p_.width(), steps);
  }

  template <typename Aside>
  void runPass(const Block& block, int64_t pass, Aside& aside) {
    constexpr int64_t tileColumns = kTileColumns<M>;
    const int64_t rows = block.span.rows(), tiles = divideUp(rows, kTileRows);
    const int64_t panels = divideUp(block.columns, tileColumns), first = pass * passWords_ * M::kElements;
    const int64_t elements = elementsIn(pass), words = wordsOf<M>(elements);
    const bool last = pass + 1 == passes_;
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = rows * tile / tiles, count = rows * (tile + 1) / tiles - begin;
      const Word* x[kTileRows];
      for (int64_t r = 0; r < count; ++r) {
        const T* row = xRows_[begin + r] + first;
        if (!inPlace_) packLine<M>(elements, row, copies_ + r * passWords_);
        x[r] = inPlace_ ? reinterpret_cast<const Word*>(row) : copies_ + r * passWords_;
      }
      if (tile + 1 < tiles)
        for (int64_t r = begin + count; r < rows * (tile + 2) / tiles; ++r) fetchStart(xRows_[r] + first);
      if (last) prefetchRows(p_, block.span.begin + begin, count, block.column, block.columns);
      for (int64_t panel = 0; panel < panels; ++panel) {
        Acc* sum = sums_ + ((passes_ > 1 ? begin : 0) * panels + panel * count) * tileColumns;
        const int64_t offset = panel * tileColumns;
        microKernel<M, Aside>(count)(words, x, panels_[0] + words * offset, sum, pass > 0, aside);
        if (last)
          finishRows(p_, block.span.begin + begin, count, block.column + offset,
                     std::min(tileColumns, block.columns - offset), sum, tileColumns);
      }
    }
  }

  const Product<T, Out>& p_;
  int64_t mostRows_, mostPanels_, passes_, passWords_;
  bool inPlace_;
  bool packed_ = false;  // panels_[0] holds the next pass
  char* memory_ = nullptr;
  Word *panels_[2], *copies_;
  Acc* sums_;
  const T** xRows_;
};

template <typename M, typename Out>
inline void multiply(const Product<typename M::T, Out>& p) {
  const int64_t width = p.width(), most = FewRows<M>::most(p.transposeW);
  const int64_t blockWidth = blockColumns<M>(wordsOf<M>(p.in()));
  // About eight tasks per thread, each with rows enough to pay for packing.
  const int64_t wanted =
      divideUp(p.groups.rows * divideUp(width, 2 * kTileColumns<M>), Pool::instance().threads() * 8);
  std::vector<Block> blocks;
  FewProduct<M, Out> few(p);
  int64_t mostRows = 0;
  for (const Span& span : spansByRows(p.groups, std::clamp<int64_t>(wanted, 96, kMostSpanRows), false)) {
    if (p.groups.end(span.expert) - p.groups.begin(span.expert) <= most) {
      few.add(span);
      continue;
    }
    mostRows = std::max(mostRows, span.rows());
    for (int64_t column = 0; column < width; column += blockWidth)
      blocks.push_back({span, column, std::min(blockWidth, width - column)});
  }
  const int64_t packed = static_cast<int64_t>(blocks.size()), tasks = packed + few.tasks();
  const int64_t multiplyAdds = p.groups.rows * p.in() * width;
  few.prepare();
  if (packed == 0) return forTaskShares(tasks, multiplyAdds, [&](int64_t task) { few.run(task); });
  forTasksAhead(tasks, multiplyAdds, [&] {
    return [&, multiplier = Multiplier<M, Out>(p, mostRows, std::min(blockWidth, width))](
               int64_t task, int64_t following) mutable {
      if (task < packed)
        multiplier.run(blocks[task], following >= 0 && following < packed ? &blocks[following] : nullptr);
      else
        few.run(task - packed);
    };
  });
}

}  // namespace MF_CPU_NAMESPACE
