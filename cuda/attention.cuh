#pragma once
// What both kinds and both directions of attention share: blocks of 64 query rows of one head against tiles
// of 64 keys. Rows: the K query groups of a position share its keys, so row r = i * K + k of a head, at the
// stride H * C. Thread r < 64 of a block owns row r of the score tile. Kernels that add up values or
// gradients own 64-column chunks of them and compute the scores anew for each group of chunks, which bounds
// registers for any head width.
#include "cuda/parallel.cuh"
#include "cuda/tile.cuh"

namespace mf::cuda {

template <typename T>
struct AttentionInput {
  AttentionShape s;
  const T *q, *k, *v;
  const int32_t *keyMask, *documentStart;
  bool attendCurrent, remainder;
  Accumulate<T> scale;  // 1 / sqrt(C)
  bool aligned;

  MF_DEVICE int64_t rows() const { return s.Tq * s.K; }
  MF_DEVICE int64_t stride() const { return s.H * s.C; }
  // Of q, out, dout and dq; of rowState and live when divided by C.
  MF_DEVICE int64_t rowOffset(int64_t b, int64_t h, int64_t row) const {
    return ((b * rows() + row) * s.H + h) * s.C;
  }
  MF_DEVICE int64_t keyOffset(int64_t b, int64_t h, int64_t key) const {
    return ((b * s.keyCapacity + key) * s.H + h) * s.C;
  }
  MF_DEVICE int64_t position(int64_t row) const { return row / s.K + s.Tk - s.Tq; }
};

template <typename T, typename Args>
AttentionInput<T> attentionInput(const Args& args, const View& v) {
  using A = Accumulate<T>;
  bool aligned = isAligned<T>(args.q.data, args.shape.C) && isAligned<T>(args.k.data, args.shape.C);
  aligned = aligned && isAligned<T>(v.data, args.shape.C);
  return {args.shape,
          args.q.template as<T>(),
          args.k.template as<T>(),
          v.as<T>(),
          args.keyMask.template as<int32_t>(),
          args.documentStart.template as<int32_t>(),
          args.attendCurrent,
          false,
          static_cast<A>(1 / std::sqrt(static_cast<double>(args.shape.C))),
          aligned};
}

// Rows [0, count) of one head from a first one on.
template <typename T>
struct HeadRows {
  const T* first;
  int64_t stride, count, width;
  bool aligned;
  MF_DEVICE const T* anywhere() const { return first; }
  MF_DEVICE const T* row(int64_t i) const { return i < count ? first + i * stride : nullptr; }
};

// Where a block of rows stands, and which keys the row of this thread may see: start <= j <= limit, unless
// masked.
template <typename T>
struct RowBlock {
  int64_t b, h, first, count;   // first row and number of rows
  int64_t start, limit;         // of this thread's row; none for the threads beyond the rows
  int64_t firstTile, lastTile;  // of the whole block; last below first: nothing to see
  const int32_t* keyMask;

  // Called by all threads.
  MF_DEVICE RowBlock(const AttentionInput<T>& in, int64_t head, int64_t index)
      : b(head / in.s.H), h(head % in.s.H), first(index * kTile), keyMask(nullptr) {
    if (in.keyMask) keyMask = in.keyMask + b * in.s.Tk;
    count = minimum(int64_t{kTile}, in.rows() - first);
    start = in.s.Tk;
    limit = -1;
    if (threadId() < count) {
      const int64_t row = first + threadId();
      limit = in.attendCurrent ? in.position(row) : in.position(row) - 1;
      start =
          in.documentStart ? maximum(int64_t{in.documentStart[b * in.s.Tq + row / in.s.K]}, int64_t{0}) : 0;
    }
    firstTile = blockReduce(start, Min{}) / kTile;
    const int64_t last = blockReduce(limit, Max{});
    lastTile = last < 0 ? -1 : last / kTile;
  }
  MF_DEVICE bool sees(int64_t key) const {
    return key >= start && key <= limit && (!keyMask || keyMask[key] != 0);
  }
};

template <typename T>
MF_DEVICE HeadRows<T> queryRows(const AttentionInput<T>& in, const RowBlock<T>& rows, const T* data) {
  return {data + in.rowOffset(rows.b, rows.h, rows.first), in.stride(), rows.count, in.s.C, in.aligned};
}
template <typename T>
MF_DEVICE HeadRows<T> keyRows(const AttentionInput<T>& in, const RowBlock<T>& rows, int64_t tile,
                              const T* data) {
  return {data + in.keyOffset(rows.b, rows.h, tile * kTile), in.stride(),
          minimum(int64_t{kTile}, in.s.Tk - tile * kTile), in.s.C, in.aligned};
}

// tile [64, 64] = left [64, C] right [64, C]^T, times scale.
template <typename T>
MF_DEVICE void dotTile(const SharedSpan<Accumulate<T>>& tile, const SharedSpan<T>& a, const SharedSpan<T>& b,
                       const HeadRows<T>& left, const HeadRows<T>& right, Accumulate<T> scale) {
  BlockProduct<T> product;
  product.clear();
  multiplyTiles<T, true, true>(product, a, b, left, 0, right, 0, 0, left.width);
  product.forEach(
      [&](int r, int c, Accumulate<T> value) { tile[r * kOuterStride<Accumulate<T>> + c] = value * scale; });
  syncThreads();
}

// The operand tile that a tile of weights becomes: itself, or rounded beside it.
template <typename T>
constexpr bool kRounds = sizeof(T) < sizeof(Accumulate<T>);
template <typename T>
constexpr int kScoreElements = kTile* kOuterStride<T>;

template <typename T>
MF_DEVICE SharedSpan<T> operandTile(DynamicShared& memory, const SharedSpan<Accumulate<T>>& scores) {
  if constexpr (kRounds<T>)
    return memory.take<T>(kScoreElements<T>);
  else
    return scores;
}

// Calls f(row, column, value) for the sums of the chunk of columns from `column` on that lie in the matrix.
template <typename T, typename F>
MF_DEVICE void forChunk(BlockProduct<T>& product, int64_t rows, int64_t column, int64_t width, F f) {
  product.forEach([&](int r, int c, Accumulate<T>& value) {
    if (r < rows && column + c < width) f(int64_t{r}, column + c, value);
  });
}

}  // namespace mf::cuda
