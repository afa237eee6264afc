#pragma once
// Operands on their way through shared memory: kStages pieces of kStageDepth<T> of the depth, copied by
// cp.async. An operand lies one of two ways in memory and in its stages: "inner", when the depth runs along
// its rows, or "outer", when its rows are the depth. `outer` is the row of the left operand or the column of
// the right one.
#include "cuda/gemm_rows.cuh"
#include "cuda/vector.cuh"

namespace mf::cuda {

constexpr int kStages = 3;
template <typename T>
constexpr int kStageDepth = 64 / static_cast<int>(sizeof(T));

// Where an element lies in its stage. Chunks of 16 bytes are permuted so that neither copies nor fragment
// loads meet in a bank: a fragment takes 8 rows of one inner chunk, or 8 (bf16) or 4 (f32) rows of an outer
// one.
template <typename T, int kOuter, bool kInner>
struct StageLayout {
  static constexpr int kElements = kOuter * kStageDepth<T>;
  MF_DEVICE static int place(int outer, int k) {
    constexpr int kChunk = kVector<T>;
    if constexpr (kInner)
      return outer * kStageDepth<T> + ((k / kChunk) ^ (outer / 2 % 4)) * kChunk + k % kChunk;
    else
      return k * kOuter + ((outer / kChunk) ^ (sizeof(T) == 2 ? k % 8 : k % 4 * 2)) * kChunk + outer % kChunk;
  }
};

// Copies a chunk of which `filled` elements exist; the others become zeros.
template <typename T>
MF_DEVICE void copyChunk(T* target, const T* source, int filled, bool aligned) {
  if (aligned) {
    copyAsync16(target, source, filled * static_cast<int>(sizeof(T)));
  } else {
    for (int i = 0; i < kVector<T>; ++i) target[i] = i < filled ? source[i] : static_cast<T>(0.0f);
  }
}

template <typename T>
MF_DEVICE int chunkFilled(int64_t left) {
  return left >= kVector<T> ? kVector<T> : left > 0 ? static_cast<int>(left) : 0;
}

// One thread's share in the copies of an operand whose depth runs along rows: a chunk in each of some rows.
template <typename T, int kOuter, int kThreads, bool kInner>
class StageCopies {
  using Layout = StageLayout<T, kOuter, true>;
  static constexpr int kChunks = kStageDepth<T> / kVector<T>, kAtOnce = kThreads / kChunks;
  static constexpr int kCopies = kOuter / kAtOnce;
  static_assert(kOuter % kAtOnce == 0 && kAtOnce % 8 == 0);

 public:
  // Rows from `outer` up to outerEnd; depth from `begin` up to `end`.
  template <typename Matrix>
  MF_DEVICE void begin(const Matrix& from, int64_t outer, int64_t outerEnd, int64_t begin, int64_t end) {
    inside_ = 0;
    k_ = begin + threadId() % kChunks * kVector<T>;
    end_ = end;
    MF_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      const int64_t row = outer + threadId() / kChunks + i * kAtOnce;
      const bool inside = row < outerEnd;
      inside_ |= static_cast<uint32_t>(inside) << i;
      rows_[i] = from.at(inside ? from.memoryRow(row) : 0);
    }
  }
  // Copies the next piece of the depth.
  template <typename Matrix>
  MF_DEVICE void next(const SharedSpan<T>& stage, const Matrix& from) {
    const int filled = chunkFilled<T>(end_ - k_);
    MF_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      T* target =
          stage.at(Layout::place(threadId() / kChunks + i * kAtOnce, threadId() % kChunks * kVector<T>));
      copyChunk(target, rows_[i] + k_, inside_ >> i & 1 ? filled : 0, from.aligned);
    }
    k_ += kStageDepth<T>;
  }

 private:
  const T* rows_[kCopies];
  uint32_t inside_;
  int64_t k_, end_;
};

// The same where rows are the depth: one chunk's columns in some rows, whose places are looked up one step
// ahead.
template <typename T, int kOuter, int kThreads>
class StageCopies<T, kOuter, kThreads, false> {
  using Layout = StageLayout<T, kOuter, false>;
  static constexpr int kChunks = kOuter / kVector<T>, kAtOnce = kThreads / kChunks;
  static constexpr int kCopies = kStageDepth<T> / kAtOnce;
  static_assert(kThreads % kChunks == 0 && kStageDepth<T> % kAtOnce == 0);

 public:
  template <typename Matrix>
  MF_DEVICE void begin(const Matrix& from, int64_t outer, int64_t outerEnd, int64_t begin, int64_t end) {
    column_ = outer + threadId() % kChunks * kVector<T>;
    filled_ = chunkFilled<T>(outerEnd - column_);
    k_ = begin + threadId() / kChunks;
    end_ = end;
    lookAhead(from);
  }
  template <typename Matrix>
  MF_DEVICE void next(const SharedSpan<T>& stage, const Matrix& from) {
    MF_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      T* target =
          stage.at(Layout::place(threadId() % kChunks * kVector<T>, threadId() / kChunks + i * kAtOnce));
      const bool inside = ahead_[i] >= 0;
      copyChunk(target, from.at(inside ? ahead_[i] : 0) + column_, inside ? filled_ : 0, from.aligned);
    }
    k_ += kStageDepth<T>;
    lookAhead(from);
  }

 private:
  template <typename Matrix>
  MF_DEVICE void lookAhead(const Matrix& from) {
    MF_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      const int64_t row = k_ + i * kAtOnce;
      ahead_[i] = row < end_ ? from.memoryRow(row) : -1;
    }
  }
  int ahead_[kCopies];
  int filled_;
  int64_t column_, k_, end_;
};

}  // namespace mf::cuda
