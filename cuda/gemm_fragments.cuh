#pragma once
// The share of one warp in a tile: fragments from the stages, products on tensor cores, sums in registers.
// bf16 by m16n8k16; f32 as three TF32 products m16n8k8.
#include "cuda/gemm_stages.cuh"

namespace mf::cuda {

// A block of kWarpRows x kWarpColumns warps, each kM x kN fragments of [16, 8].
template <int kWarpRows, int kWarpColumns, int kM, int kN>
struct BlockShape {
  static constexpr int kFragmentRows = kM, kFragmentColumns = kN;
  static constexpr int kWarps = kWarpRows * kWarpColumns, kThreads = kWarps * kWarpSize;
  static constexpr int kWarpHeight = kM * 16, kWarpWidth = kN * 8;
  static constexpr int kRows = kWarpRows * kWarpHeight, kColumns = kWarpColumns * kWarpWidth;
  MF_DEVICE static int row() { return warpId() / kWarpColumns * kWarpHeight; }
  MF_DEVICE static int column() { return warpId() % kWarpColumns * kWarpWidth; }
};

// bf16: warps of [64, 64] read least from shared memory. The wide one reads least from the L2; of the narrow
// one two run at once on a multiprocessor.
using WideShape = BlockShape<2, 4, 4, 8>;    // [128, 256], 256 threads
using NarrowShape = BlockShape<2, 2, 4, 8>;  // [128, 128], 128 threads
using FloatShape = BlockShape<2, 4, 4, 4>;   // [128, 128], 256 threads

template <typename Shape>
struct WarpSums {
  float sums[Shape::kFragmentRows][Shape::kFragmentColumns][4];

  MF_DEVICE void clear() {
    MF_UNROLL
    for (int i = 0; i < Shape::kFragmentRows; ++i) MF_UNROLL
    for (int j = 0; j < Shape::kFragmentColumns; ++j) MF_UNROLL
    for (int v = 0; v < 4; ++v) sums[i][j][v] = 0;
  }
};

template <typename T, typename Shape, bool kLeftInner, bool kRightInner>
struct WarpProduct;

template <typename Shape, bool kLeftInner, bool kRightInner>
struct WarpProduct<bf16, Shape, kLeftInner, kRightInner> : WarpSums<Shape> {
  static constexpr int kM = Shape::kFragmentRows, kN = Shape::kFragmentColumns, kStep = 16;
  using Left = StageLayout<bf16, Shape::kRows, kLeftInner>;
  using Right = StageLayout<bf16, Shape::kColumns, kRightInner>;

  // Adds the product of two stages. Fragments of the next step are loaded before those at hand are used.
  MF_DEVICE void add(const SharedSpan<bf16>& left, const SharedSpan<bf16>& right) {
    constexpr int kSteps = kStageDepth<bf16> / kStep;
    Fragments fragments[2];
    fragments[0].load(left, right, 0);
    MF_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      if (step + 1 < kSteps) fragments[(step + 1) % 2].load(left, right, (step + 1) * kStep);
      const Fragments& f = fragments[step % 2];
      MF_UNROLL
      for (int i = 0; i < kM; ++i) MF_UNROLL
      for (int j = 0; j < kN; ++j) mmaBf16(this->sums[i][j], f.a[i], f.b[j]);
    }
  }

 private:
  struct Fragments {
    uint32_t a[kM][4], b[kN][2];

    // Matrices of a in the order of its registers: rows 0-7 and 8-15 of k 0-7, then those of k 8-15; of b:
    // columns 0-7 with k 0-7 and 8-15, then columns 8-15.
    MF_DEVICE void load(const SharedSpan<bf16>& left, const SharedSpan<bf16>& right, int k) {
      const int matrix = laneId() / 8, r = laneId() % 8;
      MF_UNROLL
      for (int i = 0; i < kM; ++i) {
        const int outer = Shape::row() + i * 16 + matrix % 2 * 8, from = k + matrix / 2 * 8;
        if constexpr (kLeftInner)
          loadMatrix4(a[i], left.at(Left::place(outer + r, from)));
        else
          loadMatrix4Transposed(a[i], left.at(Left::place(outer, from + r)));
      }
      MF_UNROLL
      for (int j = 0; j < kN; j += 2) {
        const int outer = Shape::column() + j * 8 + matrix / 2 * 8, from = k + matrix % 2 * 8;
        uint32_t words[4];
        if constexpr (kRightInner)
          loadMatrix4(words, right.at(Right::place(outer + r, from)));
        else
          loadMatrix4Transposed(words, right.at(Right::place(outer, from + r)));
        b[j][0] = words[0];
        b[j][1] = words[1];
        b[j + 1][0] = words[2];
        b[j + 1][1] = words[3];
      }
    }
  };
};

template <typename Shape, bool kLeftInner, bool kRightInner>
struct WarpProduct<float, Shape, kLeftInner, kRightInner> : WarpSums<Shape> {
  static constexpr int kM = Shape::kFragmentRows, kN = Shape::kFragmentColumns, kStep = 8;
  static constexpr int kSteps = kStageDepth<float> / kStep;
  using Left = StageLayout<float, Shape::kRows, kLeftInner>;
  using Right = StageLayout<float, Shape::kColumns, kRightInner>;

  // Tensor cores cut off what they add to a sum: a stage is summed from zero, and joins the others by an
  // addition that rounds.
  MF_DEVICE void add(const SharedSpan<float>& left, const SharedSpan<float>& right) {
    const int g = laneId() / 4, t = laneId() % 4;
    Split<2> b[kSteps][kN];
    MF_UNROLL
    for (int step = 0; step < kSteps; ++step) MF_UNROLL
    for (int j = 0; j < kN; ++j) MF_UNROLL
    for (int v = 0; v < 2; ++v)
      b[step][j].set(v, right[Right::place(Shape::column() + j * 8 + g, step * kStep + t + v * 4)]);
    MF_UNROLL
    for (int i = 0; i < kM; ++i) {
      float part[kN][4] = {};
      MF_UNROLL
      for (int step = 0; step < kSteps; ++step) {
        Split<4> a;
        MF_UNROLL
        for (int v = 0; v < 4; ++v)
          a.set(v, left[Left::place(Shape::row() + i * 16 + g + v % 2 * 8, step * kStep + t + v / 2 * 4)]);
        MF_UNROLL
        for (int j = 0; j < kN; ++j) {
          mmaTf32(part[j], a.lower, b[step][j].upper);
          mmaTf32(part[j], a.upper, b[step][j].lower);
          mmaTf32(part[j], a.upper, b[step][j].upper);
        }
      }
      MF_UNROLL
      for (int j = 0; j < kN; ++j) MF_UNROLL
      for (int v = 0; v < 4; ++v) this->sums[i][j][v] += part[j][v];
    }
  }

 private:
  // A fragment of x = upper + lower, each with 11 significant bits: at most 2^-23 of x is lost.
  template <int kWords>
  struct Split {
    uint32_t upper[kWords], lower[kWords];
    MF_DEVICE void set(int i, float x) {
      uint32_t word;
      memcpy(&word, &x, sizeof word);
      upper[i] = (word + 0x1000u) & 0xffffe000u;
      float head;
      memcpy(&head, &upper[i], sizeof head);
      const float tail = x - head;
      memcpy(&lower[i], &tail, sizeof tail);
    }
  };
};

}  // namespace mf::cuda
