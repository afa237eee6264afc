#pragma once
// Packing the weights of the next pass while a micro-kernel multiplies: a row of a panel at a time, between
// its steps. Fetching them alone would not do: rows of a power of two bytes share few sets of the L2 cache,
// so that a block of them evicts itself; the panels, which are contiguous, stay.
#include "cpu/gemm/fetch.h"
#include "cpu/gemm/pack.h"

namespace MF_CPU_NAMESPACE {
template <typename M>
class PackAhead {
 public:
  using T = typename M::T;
  using Word = typename M::Word;
  static constexpr bool kStoresRows = false;

  PackAhead() = default;
  // [words * kElements, columns] of weights, whole panels, within `steps` steps of the kernels.
  PackAhead(const T* w, int64_t stride, int64_t words, int64_t columns, Word* panels, int64_t steps)
      : fetched_(w),
        packed_(w),
        panel_(panels),
        stride_(M::kElements * stride),
        oddRow_(stride),
        words_(words),
        columns_(columns),
        left_(words + kAhead) {
    interval_ = (steps << kFraction) / (left_ * (columns / kTileColumns<M>));
  }

  // Does a piece; returns the number of steps, at most `left`, until the next. Inlined at all costs: around a
  // call the kernel would spill its tile.
  [[gnu::always_inline]] int64_t step(int64_t left) {
    if (left_ == 0) return left;
    doPiece();
    due_ += interval_;
    const int64_t steps = due_ >> kFraction;
    due_ -= steps << kFraction;
    return steps < 1 ? 1 : (steps < left ? steps : left);
  }

  // What the kernels' steps did not suffice for.
  void finish() {
    while (left_ > 0) doPiece();
  }

 private:
  // Word rows between fetching and packing: a hundred nanoseconds of the fastest kernel.
  static constexpr int64_t kAhead = 32;
  static constexpr int kFraction = 8;

  // Fetches a row of a panel, packs another that was fetched before.
  [[gnu::always_inline]] void doPiece() {
    constexpr int64_t bytes = kTileColumns<M> * static_cast<int64_t>(sizeof(T));
    if (left_ > kAhead) {
#pragma GCC unroll 2
      for (int r = 0; r < M::kElements; ++r)
#pragma GCC unroll 4
        for (int64_t i = 0; i < bytes; i += kLineBytes)
          __builtin_prefetch(reinterpret_cast<const char*>(fetched_ + column_ + r * oddRow_) + i, 0, 2);
    }
    if (left_ <= words_) packRow<M>(packed_ + column_, oddRow_, panel_ + column_ * words_);
    column_ += kTileColumns<M>;
    if (column_ < columns_) return;
    column_ = 0;
    fetched_ += stride_;
    if (left_ <= words_) {
      packed_ += stride_;
      panel_ += kTileColumns<M>;
    }
    --left_;
  }

  const T *fetched_ = nullptr, *packed_ = nullptr;
  Word* panel_ = nullptr;
  int64_t stride_ = 0, oddRow_ = 0, words_ = 0, columns_ = 0, left_ = 0;
  int64_t column_ = 0, interval_ = 0, due_ = 0;
};

}  // namespace MF_CPU_NAMESPACE
