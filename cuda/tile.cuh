#pragma once
// Tiles of matrices on their way through shared memory into a block product. A matrix is anything with
// row(i), a pointer to row i or null outside it, `width`, and `aligned`: whether all rows begin at multiples
// of 16 bytes. As an operand it lies one of two ways: "inner", when the depth of the product runs along its
// rows, or "outer", when its rows are the depth.
#include "cuda/block_product.cuh"

namespace mf::cuda {

constexpr int kTile = kProductTile;
constexpr int kPad = 16;  // bytes between rows of shared memory, against bank conflicts

template <typename T>
constexpr int kDepth = 64 / static_cast<int>(sizeof(T));  // of a step: 64 bytes a row
template <typename T>
constexpr int kInnerStride = kDepth<T> + kPad / static_cast<int>(sizeof(T));
template <typename T>
constexpr int kOuterStride = kTile + kPad / static_cast<int>(sizeof(T));
// Elements of one operand's tile, whichever way it lies.
template <typename T, bool kInner>
constexpr int kTileElements = kInner ? kTile* kInnerStride<T> : kDepth<T>* kOuterStride<T>;
// Shared memory of an operand with two stages, enough for either way.
template <typename T>
constexpr int kStagedElements = 2 *
                                (kTileElements<T, true> > kTileElements<T, false> ? kTileElements<T, true>
                                                                                  : kTileElements<T, false>);

template <typename T>
bool isAligned(const void* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}

// Copies [kRows, kColumns] from (row, column) on into shared memory, with zeros outside the matrix; 16 bytes
// at a time and asynchronously where the matrix allows.
template <typename T, int kRows, int kColumns, typename Matrix>
MF_DEVICE void loadTile(const SharedSpan<T>& tile, int stride, const Matrix& from, int64_t row,
                        int64_t column) {
  constexpr int kVector = 16 / static_cast<int>(sizeof(T)), kVectors = kColumns / kVector;
  for (int i = threadId(); i < kRows * kVectors; i += kProductThreads) {
    const int r = i / kVectors, c = i % kVectors * kVector;
    const T* source = from.row(row + r);
    const int64_t left = source ? from.width - column - c : 0;
    if (from.aligned) {
      const int filled = left >= kVector ? 16 : left > 0 ? static_cast<int>(left * sizeof(T)) : 0;
      copyAsync16(tile.at(r * stride + c), filled > 0 ? source + column + c : from.anywhere(), filled);
    } else {
      for (int v = 0; v < kVector; ++v)
        tile[r * stride + c + v] = v < left ? source[column + c + v] : static_cast<T>(0.0f);
    }
  }
}

template <typename T, bool kInner, typename Matrix>
MF_DEVICE void loadOperand(const SharedSpan<T>& tile, const Matrix& from, int64_t outer, int64_t k) {
  if constexpr (kInner)
    loadTile<T, kTile, kDepth<T>>(tile, kInnerStride<T>, from, outer, k);
  else
    loadTile<T, kDepth<T>, kTile>(tile, kOuterStride<T>, from, k, outer);
}

template <typename T, bool kInner>
MF_DEVICE TileView<T, kInner> viewOf(const SharedSpan<T>& tile) {
  return {tile, kInner ? kInnerStride<T> : kOuterStride<T>};
}

// product += the rows (or columns) of left from `row` on times those of right from `column` on, over the
// depth [begin, end). Two stages: a step is multiplied while the next one arrives.
template <typename T, bool kLeftInner, bool kRightInner, typename Left, typename Right>
MF_DEVICE void multiplyTiles(BlockProduct<T>& product, const SharedSpan<T>& a, const SharedSpan<T>& b,
                             const Left& left, int64_t row, const Right& right, int64_t column, int64_t begin,
                             int64_t end) {
  constexpr int kHalf = kStagedElements<T> / 2;
  if (begin >= end) return;
  const auto load = [&](int stage, int64_t k) {
    loadOperand<T, kLeftInner>(a.part(stage * kHalf, kHalf), left, row, k);
    loadOperand<T, kRightInner>(b.part(stage * kHalf, kHalf), right, column, k);
    commitCopies();
  };
  load(0, begin);
  int stage = 0;
  for (int64_t k = begin; k < end; k += kDepth<T>, stage ^= 1) {
    if (k + kDepth<T> < end) {
      load(stage ^ 1, k + kDepth<T>);
      waitCopies<1>();
    } else {
      waitCopies<0>();
    }
    syncThreads();
    product.add(viewOf<T, kLeftInner>(a.part(stage * kHalf, kHalf)),
                viewOf<T, kRightInner>(b.part(stage * kHalf, kHalf)), kDepth<T>);
    syncThreads();
  }
}

// product += left times the columns of right from `column` on, left being a whole [64, 64] tile in shared
// memory with rows kOuterStride apart: read as it is (kLeftInner) or transposed. Begins and ends with all
// threads in step.
template <typename T, bool kLeftInner, typename Right>
MF_DEVICE void multiplyShared(BlockProduct<T>& product, const SharedSpan<T>& left, const SharedSpan<T>& b,
                              const Right& right, int64_t column) {
  constexpr int kHalf = kStagedElements<T> / 2, kStride = kOuterStride<T>;
  const auto load = [&](int stage, int k) {
    loadOperand<T, false>(b.part(stage * kHalf, kHalf), right, column, k);
    commitCopies();
  };
  load(0, 0);
  int stage = 0;
  for (int k = 0; k < kTile; k += kDepth<T>, stage ^= 1) {
    if (k + kDepth<T> < kTile) {
      load(stage ^ 1, k + kDepth<T>);
      waitCopies<1>();
    } else {
      waitCopies<0>();
    }
    syncThreads();
    const int offset = kLeftInner ? k : k * kStride;
    product.add(TileView<T, kLeftInner>{left.part(offset, kTile * kStride - offset), kStride},
                viewOf<T, false>(b.part(stage * kHalf, kHalf)), kDepth<T>);
    syncThreads();
  }
}

}  // namespace mf::cuda
