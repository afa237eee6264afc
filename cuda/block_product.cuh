#pragma once
// A product of two shared tiles by one block of kProductThreads threads: [64, depth] times [depth, 64], sums
// in registers. bf16 on tensor cores; f32 as three TF32 products (the rest of each operand beside its upper
// 11 bits keeps f32 accuracy); f64 in plain arithmetic.
#include "cuda/common.cuh"

namespace mf::cuda {

constexpr int kProductThreads = 128;
constexpr int kProductTile = 64;

// Elements in shared memory, by (outer, k): outer is the row of the left operand or the column of the right
// one. kDepthInner: k runs along memory. `stride` is the distance between the rows of memory.
template <typename T, bool kDepthInner>
struct TileView {
  SharedSpan<T> data;
  int stride;
  MF_DEVICE T& at(int outer, int k) const {
    return data[kDepthInner ? outer * stride + k : k * stride + outer];
  }
};

MF_DEVICE uint32_t pairOf(bf16 low, bf16 high) {
  return low.bits | static_cast<uint32_t>(high.bits) << 16;
}

template <typename T>
struct BlockProduct;

// Four warps, each [32, 32] of the result in 2 x 4 fragments [16, 8].
struct WarpTiling {
  static constexpr int kRows = 2, kColumns = 4;
  MF_DEVICE static int row() { return warpId() / 2 * 32; }
  MF_DEVICE static int column() { return warpId() % 2 * 32; }
};

struct FragmentSums : WarpTiling {
  float sums[kRows][kColumns][4];

  MF_DEVICE void clear() {
    MF_UNROLL
    for (int i = 0; i < kRows; ++i) MF_UNROLL
    for (int j = 0; j < kColumns; ++j) MF_UNROLL
    for (int v = 0; v < 4; ++v) sums[i][j][v] = 0;
  }
  // Calls f(row, column, sum) for every element of this thread.
  template <typename F>
  MF_DEVICE void forEach(F f) {
    const int g = laneId() / 4, t = laneId() % 4;
    MF_UNROLL
    for (int i = 0; i < kRows; ++i) MF_UNROLL
    for (int j = 0; j < kColumns; ++j) MF_UNROLL
    for (int v = 0; v < 4; ++v)
      f(row() + i * 16 + g + v / 2 * 8, column() + j * 8 + t * 2 + v % 2, sums[i][j][v]);
  }
};

template <>
struct BlockProduct<bf16> : FragmentSums {
  static constexpr int kStep = 16;

  template <bool kLeftInner, bool kRightInner>
  MF_DEVICE void add(const TileView<bf16, kLeftInner>& left, const TileView<bf16, kRightInner>& right,
                     int depth) {
    for (int k = 0; k < depth; k += kStep) {
      uint32_t a[kRows][4], b[kColumns][2];
      MF_UNROLL
      for (int i = 0; i < kRows; ++i) loadLeft(left, row() + i * 16, k, a[i]);
      MF_UNROLL
      for (int j = 0; j < kColumns; j += 2) loadRight(right, column() + j * 8, k, b[j], b[j + 1]);
      MF_UNROLL
      for (int i = 0; i < kRows; ++i) MF_UNROLL
      for (int j = 0; j < kColumns; ++j) mmaBf16(sums[i][j], a[i], b[j]);
    }
  }

 private:
  // Matrices in the order of the registers: rows 0-7 and 8-15 of k 0-7, then those of k 8-15.
  template <bool kInner>
  MF_DEVICE static void loadLeft(const TileView<bf16, kInner>& tile, int row, int k, uint32_t (&a)[4]) {
    const int matrix = laneId() / 8, r = laneId() % 8;
    if constexpr (kInner)
      loadMatrix4(a, &tile.at(row + matrix % 2 * 8 + r, k + matrix / 2 * 8));
    else
      loadMatrix4Transposed(a, &tile.at(row + matrix % 2 * 8, k + matrix / 2 * 8 + r));
  }
  // Two fragments: columns 0-7 with k 0-7 and 8-15, then columns 8-15.
  template <bool kInner>
  MF_DEVICE static void loadRight(const TileView<bf16, kInner>& tile, int column, int k, uint32_t (&first)[2],
                                  uint32_t (&second)[2]) {
    const int matrix = laneId() / 8, r = laneId() % 8;
    uint32_t b[4];
    if constexpr (kInner)
      loadMatrix4(b, &tile.at(column + matrix / 2 * 8 + r, k + matrix % 2 * 8));
    else
      loadMatrix4Transposed(b, &tile.at(column + matrix / 2 * 8, k + matrix % 2 * 8 + r));
    first[0] = b[0];
    first[1] = b[1];
    second[0] = b[2];
    second[1] = b[3];
  }
};

// x = upper + lower with 11 significant bits each, but for the last two or three bits of x.
struct SplitTf32 {
  uint32_t upper, lower;
  MF_DEVICE explicit SplitTf32(float x) {
    memcpy(&upper, &x, sizeof upper);
    upper &= 0xffffe000u;
    float head;
    memcpy(&head, &upper, sizeof head);
    const float tail = x - head;
    memcpy(&lower, &tail, sizeof lower);
  }
};

template <>
struct BlockProduct<float> : FragmentSums {
  static constexpr int kStep = 8;

  template <bool kLeftInner, bool kRightInner>
  MF_DEVICE void add(const TileView<float, kLeftInner>& left, const TileView<float, kRightInner>& right,
                     int depth) {
    const int g = laneId() / 4, t = laneId() % 4;
    for (int k = 0; k < depth; k += kStep) {
      uint32_t a[kRows][4], aRest[kRows][4];
      MF_UNROLL
      for (int i = 0; i < kRows; ++i) MF_UNROLL
      for (int v = 0; v < 4; ++v) {
        const SplitTf32 x(left.at(row() + i * 16 + g + v % 2 * 8, k + t + v / 2 * 4));
        a[i][v] = x.upper;
        aRest[i][v] = x.lower;
      }
      MF_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        const SplitTf32 low(right.at(column() + j * 8 + g, k + t)),
            high(right.at(column() + j * 8 + g, k + t + 4));
        const uint32_t b[2] = {low.upper, high.upper}, bRest[2] = {low.lower, high.lower};
        MF_UNROLL
        for (int i = 0; i < kRows; ++i) {
          mmaTf32(sums[i][j], aRest[i], b);
          mmaTf32(sums[i][j], a[i], bRest);
          mmaTf32(sums[i][j], a[i], b);
        }
      }
    }
  }
};

// Each thread four rows, 16 apart, and eight columns, 8 apart.
template <>
struct BlockProduct<double> {
  static constexpr int kStep = 1, kRows = 4, kColumns = 8;
  double sums[kRows][kColumns];

  MF_DEVICE void clear() {
    MF_UNROLL
    for (int i = 0; i < kRows; ++i) MF_UNROLL
    for (int j = 0; j < kColumns; ++j) sums[i][j] = 0;
  }
  template <typename F>
  MF_DEVICE void forEach(F f) {
    MF_UNROLL
    for (int i = 0; i < kRows; ++i) MF_UNROLL
    for (int j = 0; j < kColumns; ++j) f(threadId() / 8 + i * 16, threadId() % 8 + j * 8, sums[i][j]);
  }
  template <bool kLeftInner, bool kRightInner>
  MF_DEVICE void add(const TileView<double, kLeftInner>& left, const TileView<double, kRightInner>& right,
                     int depth) {
    const int row = threadId() / 8, column = threadId() % 8;
    for (int k = 0; k < depth; ++k) MF_UNROLL
    for (int i = 0; i < kRows; ++i) MF_UNROLL
    for (int j = 0; j < kColumns; ++j) sums[i][j] += left.at(row + i * 16, k) * right.at(column + j * 8, k);
  }
};

}  // namespace mf::cuda
