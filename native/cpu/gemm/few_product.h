#pragma once
// The unpacked path of a product, task by task. [in, out] weights are read in whole rows, some of them a
// task: what a row has of 4 KB is one stretch of memory, which the processor fetches ahead by itself, be it
// one thread that reads or many. The sums of an output's tasks are added in the order of their rows by the
// thread that finishes last; where one task ends and the next begins follows from the weights' shape alone.
#include <atomic>
#include <memory>
#include <vector>

#include "cpu/gemm/few_pairs.h"
#include "cpu/gemm/few_rows.h"

namespace MF_CPU_NAMESPACE {
constexpr int64_t kPartBytes = int64_t{512} << 10;  // of [in, out] weights in a task, on average
constexpr int64_t kRowBytes = 4096;                 // of a row of them, where few rows of x share them
constexpr int64_t kWideRows = 2;                    // how many those are: their sums stay in the L1 cache
constexpr int64_t kNarrowColumns = 512;             // columns for more rows of x

// How words of type M are multiplied without packing: up to how many rows of x this is faster, and the
// kernels.
template <typename M>
struct FewRows {
  using Wide = WideWord<typename M::T>;
  using Acc = typename M::Acc;
  static int64_t most(bool transposeW) { return fewRows<typename M::T>(transposeW); }
  template <typename P>
  static void dot(const P& p, const Span& span, int64_t column, int64_t columns) {
    dotRows<Wide>(p, span, column, columns);
  }
  template <typename P>
  static void stream(const P& p, const Span& span, const Piece& piece, Acc* sums, int64_t stride) {
    streamRows<Wide>(p, span, piece, sums, stride);
  }
  static void orderSums(int64_t, Acc*) {}
};
#if defined(__AVX512F__)
template <>
struct FewRows<WordBf16Pair> {
  static int64_t most(bool) { return kPairRows; }
  template <typename P>
  static void dot(const P& p, const Span& span, int64_t column, int64_t columns) {
    dotPairs(p, span, column, columns);
  }
  template <typename P>
  static void stream(const P& p, const Span& span, const Piece& piece, float* sums, int64_t stride) {
    streamPairs(p, span, piece, sums, stride);
  }
  static void orderSums(int64_t n, float* sums) {
    for (int64_t i = 0; i < n; i += kPairColumns) orderQuads(sums + i);
  }
};
#endif

template <typename M, typename Out>
class FewProduct {
 public:
  using T = typename M::T;
  using Acc = typename M::Acc;
  using Few = FewRows<M>;

  explicit FewProduct(const Product<T, Out>& product) : p_(product) {
    const int64_t bytes = p_.in() * p_.width() * static_cast<int64_t>(sizeof(T));
    parts_ = p_.transposeW ? 1 : std::max<int64_t>(1, bytes / kPartBytes);
  }

  // Before prepare().
  void add(const Span& span) {
    const int64_t rows = span.rows(), most = columnsFor(rows);
    for (int64_t column = 0; column < p_.width(); column += most) {
      const int64_t columns = std::min(most, p_.width() - column);
      blocks_.push_back({span, column, columns, sums_});
      if (!p_.transposeW) sums_ += parts_ * rows * strideOf(columns);
    }
  }

  int64_t tasks() const { return static_cast<int64_t>(blocks_.size()) * parts_; }

  // Takes memory of the calling thread, which the tasks share.
  void prepare() {
    memory_ = static_cast<Acc*>(jobScratch(sums_ * sizeof(Acc)));
    left_ = std::make_unique<std::atomic<int64_t>[]>(blocks_.size());
    for (size_t i = 0; i < blocks_.size(); ++i) left_[i].store(parts_, std::memory_order_relaxed);
  }

  void run(int64_t task) {
    const Block& block = blocks_[task / parts_];
    if (p_.transposeW) return Few::dot(p_, block.span, block.column, block.columns);
    const int64_t rows = block.span.rows(), stride = strideOf(block.columns), n = rows * stride;
    const int64_t part = task % parts_;
    Acc *first = memory_ + block.sums, *sums = first + part * n;
    std::fill_n(sums, n, Acc(0));
    const Piece piece{block.column, block.columns, beginOf(part), beginOf(part + 1)};
    Few::stream(p_, block.span, piece, sums, stride);
    if (left_[task / parts_].fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    for (int64_t other = 1; other < parts_; ++other)
      for (int64_t i = 0; i < n; ++i) first[i] += first[other * n + i];
    Few::orderSums(n, first);
    finishRows(p_, block.span.begin, rows, block.column, block.columns, first, stride);
  }

 private:
  // Some columns of a span, whose parts' sums begin at memory_ + sums.
  struct Block {
    Span span;
    int64_t column, columns, sums;
  };

  int64_t columnsFor(int64_t rows) const {
    if (p_.transposeW) return kDotColumns;
    return rows <= kWideRows ? kRowBytes / static_cast<int64_t>(sizeof(T)) : kNarrowColumns;
  }
  // The first row of a part. Parts get smaller towards the end, so that threads finish at about the same
  // time.
  int64_t beginOf(int64_t part) const {
    const int64_t before = part * parts_ - part * (part - 1) / 2, all = parts_ * (parts_ + 1) / 2;
    return std::min(p_.in(), roundUp(p_.in() * before / all, 2 * kStreamSteps));
  }
  static int64_t strideOf(int64_t columns) { return roundUp(columns, 2 * kWordLanes<WordF32>); }

  const Product<T, Out>& p_;
  int64_t parts_;
  int64_t sums_ = 0;
  std::vector<Block> blocks_;
  std::unique_ptr<std::atomic<int64_t>[]> left_;  // parts of a block that are not done
  Acc* memory_ = nullptr;
};

}  // namespace MF_CPU_NAMESPACE
