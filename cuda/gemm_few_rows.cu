// Products of few rows, as in decoding: every weight is read once for up to kRows rows, sixteen bytes a
// thread, some of them always on their way; a sum has one order. Rows wait in shared memory.
#include "cuda/gemm_epilogue.cuh"

namespace mf::cuda {
namespace {

constexpr int kFewThreads = 256, kFewWarps = kFewThreads / kWarpSize;
constexpr int kFewRows = 8;
constexpr int kLoads = 8;  // of a thread on their way

template <typename T>
using Weights = Vector<T, kVector<T>>;

// The vector that p points to, of which `filled` elements exist, with zeros behind them. Of aligned weights
// all exist or none.
template <typename T>
MF_DEVICE Weights<T> loadWeights(const T* p, int filled, bool aligned) {
  if (aligned) return filled > 0 ? asVector<Weights<T>>(p) : Weights<T>{};
  Weights<T> result;
  MF_UNROLL
  for (int v = 0; v < kVector<T>; ++v) result.at[v] = v < filled ? p[v] : static_cast<T>(0.0f);
  return result;
}

// Weights [in, out]: four threads side by side read 64 bytes of a row, the block kDepth rows at a time.
template <typename T>
struct OuterShape {
  static constexpr int kChunks = 4, kColumns = kChunks * kVector<T>;
  static constexpr int kAtOnce = kFewThreads / kChunks, kDepth = kAtOnce * kLoads;
};

template <typename T, typename Out, int kRows>
MF_KERNEL void outerKernel(PlannedRows<T> x, ExpertWeights<T> w,
                           ProductTiles<kRows, OuterShape<T>::kColumns> tiles, ElementFinish<T, Out> finish) {
  using Shape = OuterShape<T>;
  constexpr int kCount = kVector<T>;
  MF_SHARED(float, inputs, 2 * Shape::kDepth * kRows);  // two slices of the depth, rows side by side
  MF_SHARED(float, sums, kFewWarps* kRows* Shape::kColumns);
  Tile tile;
  if (!tiles.find(blockId(), tile)) return;
  const int chunk = threadId() % Shape::kChunks, own = threadId() / Shape::kChunks;
  const int64_t column = tile.column + chunk * kCount;
  const int filled = chunkFilled<T>(tile.columnEnd - column);
  const ExpertWeights<T> weights = w.select(tile.expert);
  const auto load = [&](int64_t k, int i) {
    const int64_t row = k + own + i * Shape::kAtOnce;
    const bool exists = row < tile.end;
    return loadWeights(weights.at(exists ? static_cast<int>(row) : 0) + column, exists ? filled : 0,
                       weights.aligned);
  };
  float part[kRows][kCount] = {};
  Weights<T> ahead[kLoads];
  MF_UNROLL
  for (int i = 0; i < kLoads; ++i) ahead[i] = load(0, i);
  int slice = 0;
  for (int64_t k = 0; k < tile.end; k += Shape::kDepth, slice ^= 1) {
    const SharedSpan<float> rows = inputs.part(slice * Shape::kDepth * kRows, Shape::kDepth * kRows);
    MF_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const bool exists = tile.row + r < tile.rowEnd;
      const T* row = x.at(x.memoryRow(exists ? tile.row + r : tile.row));
      for (int i = threadId(); i < Shape::kDepth; i += kFewThreads)
        rows[i * kRows + r] = exists && k + i < tile.end ? static_cast<float>(row[k + i]) : 0.0f;
    }
    syncThreads();
    MF_UNROLL
    for (int i = 0; i < kLoads; ++i) {
      const int at = (own + i * Shape::kAtOnce) * kRows;
      MF_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const float input = rows[at + r];
        MF_UNROLL
        for (int c = 0; c < kCount; ++c) part[r][c] += input * static_cast<float>(ahead[i].at[c]);
      }
      ahead[i] = load(k + Shape::kDepth, i);
    }
  }
  // Over the lanes of a chunk, then over the warps.
  MF_UNROLL
  for (int r = 0; r < kRows; ++r) MF_UNROLL
  for (int c = 0; c < kCount; ++c) {
    float sum = part[r][c];
    MF_UNROLL
    for (int mask = kWarpSize / 2; mask >= Shape::kChunks; mask /= 2) sum += shuffleXor(sum, mask);
    if (laneId() < Shape::kChunks) sums[(warpId() * kRows + r) * Shape::kColumns + chunk * kCount + c] = sum;
  }
  syncThreads();
  for (int i = threadId(); i < kRows * Shape::kColumns; i += kFewThreads) {
    const int r = i / Shape::kColumns, c = i % Shape::kColumns;
    float sum = 0;
    MF_UNROLL
    for (int warp = 0; warp < kFewWarps; ++warp) sum += sums[(warp * kRows + r) * Shape::kColumns + c];
    if (tile.row + r < tile.rowEnd && tile.column + c < tile.columnEnd)
      finish(tile.row + r, tile.column + c, sum);
  }
}

// Weights [out, in]: a warp reads kColumnsOfWarp of their rows side by side, kSteps times 512 bytes of each.
template <typename T>
struct InnerShape {
  static constexpr int kColumnsOfWarp = 2, kColumns = kFewWarps * kColumnsOfWarp;
  static constexpr int kSteps = kLoads / kColumnsOfWarp, kAtOnce = kWarpSize * kVector<T>;
  static constexpr int kDepth = kSteps * kAtOnce;
};

template <typename T, typename Out, int kRows>
MF_KERNEL void innerKernel(PlannedRows<T> x, ExpertWeights<T> w,
                           ProductTiles<kRows, InnerShape<T>::kColumns> tiles, ElementFinish<T, Out> finish) {
  using Shape = InnerShape<T>;
  constexpr int kCount = kVector<T>, kOwn = Shape::kColumnsOfWarp;
  MF_SHARED(T, inputs, 2 * kRows * Shape::kDepth);  // two slices of the depth
  Tile tile;
  if (!tiles.find(blockId(), tile)) return;
  const int64_t column = tile.column + warpId() * kOwn;
  const ExpertWeights<T> weights = w.select(tile.expert);
  const auto load = [&](int64_t k, int i) {
    const int64_t from = k + i / kOwn * Shape::kAtOnce + laneId() * kCount, row = column + i % kOwn;
    const bool exists = row < tile.columnEnd;
    return loadWeights(weights.at(exists ? static_cast<int>(row) : 0) + from,
                       exists ? chunkFilled<T>(tile.end - from) : 0, weights.aligned);
  };
  float part[kRows][kOwn] = {};
  Weights<T> ahead[kLoads];
  MF_UNROLL
  for (int i = 0; i < kLoads; ++i) ahead[i] = load(0, i);
  int slice = 0;
  for (int64_t k = 0; k < tile.end; k += Shape::kDepth, slice ^= 1) {
    const SharedSpan<T> rows = inputs.part(slice * kRows * Shape::kDepth, kRows * Shape::kDepth);
    constexpr int kChunks = Shape::kDepth / kCount;
    for (int i = threadId(); i < kRows * kChunks; i += kFewThreads) {
      const int r = i / kChunks, at = i % kChunks * kCount;
      const bool exists = tile.row + r < tile.rowEnd;
      const int filled = exists ? chunkFilled<T>(tile.end - k - at) : 0;
      const T* from = x.at(x.memoryRow(exists ? tile.row + r : tile.row)) + k + at;
      T* to = rows.at(i * kCount);
      if (x.aligned && filled == kCount) {
        asVector<Weights<T>>(to) = asVector<Weights<T>>(from);
      } else {
        MF_NO_UNROLL
        for (int v = 0; v < kCount; ++v) to[v] = v < filled ? from[v] : static_cast<T>(0.0f);
      }
    }
    syncThreads();
    MF_UNROLL
    for (int step = 0; step < Shape::kSteps; ++step) {
      MF_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const auto& input =
            asVector<Weights<T>>(rows.at(r * Shape::kDepth + step * Shape::kAtOnce + laneId() * kCount));
        MF_UNROLL
        for (int c = 0; c < kOwn; ++c) MF_UNROLL
        for (int i = 0; i < kCount; ++i)
          part[r][c] += static_cast<float>(input.at[i]) * static_cast<float>(ahead[step * kOwn + c].at[i]);
      }
      MF_UNROLL
      for (int c = 0; c < kOwn; ++c) ahead[step * kOwn + c] = load(k + Shape::kDepth, step * kOwn + c);
    }
  }
  float own = 0;  // of row laneId() / kOwn and column laneId() % kOwn
  MF_UNROLL
  for (int r = 0; r < kRows; ++r) MF_UNROLL
  for (int c = 0; c < kOwn; ++c) {
    float sum = part[r][c];
    MF_UNROLL
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2) sum += shuffleXor(sum, mask);
    if (laneId() == r * kOwn + c) own = sum;
  }
  const int r = laneId() / kOwn, c = laneId() % kOwn;
  if (r < kRows && tile.row + r < tile.rowEnd && column + c < tile.columnEnd)
    finish(tile.row + r, column + c, own);
}

template <typename T, typename Out, int kRows>
void multiplyFew(StreamHandle stream, const Product& p) {
  const int64_t in = p.x.width, width = p.out.width;
  const PlannedRows<T> x(p.x);
  const ElementFinish<T, Out> finish(p);
  if (p.transposeW) {
    const ProductTiles<kRows, InnerShape<T>::kColumns> tiles{p.groups, width, in};
    launch(innerKernel<T, Out, kRows>, {tiles.most()}, kFewThreads, 0, stream, x,
           ExpertWeights<T>(p.w, width, in), tiles, finish);
  } else {
    const ProductTiles<kRows, OuterShape<T>::kColumns> tiles{p.groups, width, in};
    launch(outerKernel<T, Out, kRows>, {tiles.most()}, kFewThreads, 0, stream, x,
           ExpertWeights<T>(p.w, in, width), tiles, finish);
  }
}

}  // namespace

bool hasFewRows(const Product& p) {
  return p.groups.rows <= (p.groups.offsets ? maximum<int64_t>(kFewRows, 2 * p.groups.experts) : kFewRows);
}

template <typename T, typename Out>
void multiplyFewRows(StreamHandle stream, const Product& p) {
  // One token has one row on an expert.
  if (p.groups.rows <= (p.groups.offsets ? p.x.topK : 1))
    multiplyFew<T, Out, 1>(stream, p);
  else
    multiplyFew<T, Out, kFewRows>(stream, p);
}

template void multiplyFewRows<float, float>(StreamHandle, const Product&);
template void multiplyFewRows<bf16, bf16>(StreamHandle, const Product&);
template void multiplyFewRows<bf16, float>(StreamHandle, const Product&);

}  // namespace mf::cuda
