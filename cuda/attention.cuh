#pragma once
// What both kinds and both directions of attention share: blocks of 64 query rows of one head against tiles
// of 64 keys, 16 rows to a warp, whose scores stay in registers (fragments.cuh): lane 4 g + t has 16 keys in
// sequence of rows g and g + 8, "halves" 0 and 1, and four lanes have a row. Rows: the K query groups of a
// position share its keys, so row r = i * K + k of a head, at the stride H * C.
#include "cuda/fault.cuh"
#include "cuda/fragments.cuh"
#include "cuda/parallel.cuh"
#include "cuda/tile.cuh"

namespace mf::cuda {

constexpr int kRowBlock = 64, kKeyTile = 64;
constexpr int kScoreThreads = 128;  // of a block: 16 rows for each warp
constexpr int kLaneKeys = 16;

// Panels of a head that attention holds whole in shared memory and registers; wider ones go through
// attention_wide.cu.
template <typename T>
constexpr int kMostPanels = sizeof(T) < 8 ? 2 : 1;
template <typename T>
bool isWide(const AttentionShape& s) {
  return s.C > kMostPanels<T> * kPanel<T>;
}

template <typename T>
struct AttentionInput {
  AttentionShape s;
  const T *q, *k, *v;
  const int32_t *keyMask, *documentStart;
  const int32_t* firstPosition;  // of the queries; null: their last one is the last key
  Fault* fault;                  // where that may lie outside of the cache
  bool attendCurrent, remainder;
  Accumulate<T> scale;      // 1 / sqrt(C)
  Accumulate<T> log2Scale;  // the same, times log2(e): exponentials are powers of two
  bool aligned;

  MF_DEVICE int64_t rows() const { return s.Tq * s.K; }
  MF_DEVICE int64_t heads() const { return s.B * s.H; }
  MF_DEVICE int64_t stride() const { return s.H * s.C; }
  // Of q, out, dout and dq; of rowState and live when divided by C.
  MF_DEVICE int64_t rowOffset(int64_t b, int64_t h, int64_t row) const {
    return ((b * rows() + row) * s.H + h) * s.C;
  }
  MF_DEVICE int64_t keyOffset(int64_t b, int64_t h, int64_t key) const {
    return ((b * s.keyCapacity + key) * s.H + h) * s.C;
  }
  // s.Tk is the mask's width, and what launches are made for.
  MF_DEVICE int64_t keys() const {
    return firstPosition ? minimum(maximum(int64_t{*firstPosition}, int64_t{0}) + s.Tq, s.Tk) : s.Tk;
  }
  // Called by the kernels that may be told a position.
  MF_DEVICE void checkPosition() const {
    if (!firstPosition || blockId() != 0 || threadId() != 0) return;
    const int64_t position = *firstPosition, positions = s.Tk - s.Tq + 1;
    if (position < 0 || position >= positions) report(fault, FaultKind::Position, 0, position, positions);
  }
  MF_DEVICE int64_t position(int64_t row) const { return row / s.K + keys() - s.Tq; }
  MF_DEVICE int depth() const {
    return static_cast<int>(ceilDiv(s.C, Fragments<T>::kDepth)) * Fragments<T>::kDepth;
  }
};

template <typename T, typename Args>
AttentionInput<T> attentionInput(const Args& args, const View& v) {
  using A = Accumulate<T>;
  bool aligned = isAligned<T>(args.q.data, args.shape.C) && isAligned<T>(args.k.data, args.shape.C);
  aligned = aligned && isAligned<T>(v.data, args.shape.C);
  const double scale = 1 / std::sqrt(static_cast<double>(args.shape.C));
  return {args.shape,
          args.q.template as<T>(),
          args.k.template as<T>(),
          v.as<T>(),
          args.keyMask.template as<int32_t>(),
          args.documentStart.template as<int32_t>(),
          nullptr,
          nullptr,
          args.attendCurrent,
          false,
          static_cast<A>(scale),
          static_cast<A>(scale * 1.4426950408889634),
          aligned};
}

template <typename T>
void takePosition(AttentionInput<T>& in, const AttentionArgs& args, Fault* fault) {
  in.firstPosition = args.position.as<int32_t>();
  in.fault = fault;
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

// Where a block of rows stands, and which keys the two rows of this lane may see: start <= j <= limit, unless
// masked.
template <typename T>
struct RowBlock {
  int64_t b, h, first, count;  // first row and number of rows
  int start[2], limit[2];      // of this lane's rows; none for those beyond the last
  int firstTile, lastTile;     // of the whole block; last below first: nothing to see
  const int32_t* keyMask;
  int keys;

  // Called by all threads.
  MF_DEVICE RowBlock(const AttentionInput<T>& in, int64_t head, int64_t index)
      : b(head / in.s.H),
        h(head % in.s.H),
        first(index * kRowBlock),
        keyMask(nullptr),
        keys(static_cast<int>(in.keys())) {
    if (in.keyMask) keyMask = in.keyMask + b * in.s.Tk;
    count = minimum(int64_t{kRowBlock}, in.rows() - first);
    MF_UNROLL
    for (int half = 0; half < 2; ++half) {
      start[half] = keys;
      limit[half] = -1;
      if (!has(half)) continue;
      const int64_t row = first + rowOf(half);
      limit[half] = static_cast<int>(in.attendCurrent ? in.position(row) : in.position(row) - 1);
      start[half] = in.documentStart ? maximum(in.documentStart[b * in.s.Tq + row / in.s.K], 0) : 0;
    }
    firstTile = blockReduce(minimum(start[0], start[1]), Min{}) / kKeyTile;
    const int last = blockReduce(maximum(limit[0], limit[1]), Max{});
    lastTile = last < 0 ? -1 : last / kKeyTile;
  }
  // The row of the block that is this lane's.
  MF_DEVICE static int rowOf(int half) { return warpId() * 16 + laneId() / 4 + 8 * half; }
  MF_DEVICE bool has(int half) const { return rowOf(half) < count; }

  // A bit for each of this lane's 16 keys of a tile; called by whole warps.
  MF_DEVICE void visible(int tile, uint32_t (&seen)[2]) const {
    const int own = laneId() % 4, firstKey = tile * kKeyTile + own * kLaneKeys;
    uint32_t unmasked = 0xffffu;
    if (keyMask) {
      const int key = tile * kKeyTile + laneId();
      const uint32_t low = ballot(key < keys && keyMask[key] != 0);
      const uint32_t high = ballot(key + 32 < keys && keyMask[key + 32] != 0);
      unmasked = (own < 2 ? low : high) >> (own % 2 * kLaneKeys) & 0xffffu;
    }
    MF_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int from = minimum(maximum(start[half] - firstKey, 0), kLaneKeys);
      const int to = minimum(maximum(limit[half] + 1 - firstKey, 0), kLaneKeys);
      seen[half] = unmasked & ((1u << to) - 1) & ~((1u << from) - 1);
    }
  }
};

template <typename T>
MF_DEVICE HeadRows<T> queryRows(const AttentionInput<T>& in, const RowBlock<T>& rows, const T* data) {
  return {data + in.rowOffset(rows.b, rows.h, rows.first), in.stride(), rows.count, in.s.C, in.aligned};
}
template <typename T>
MF_DEVICE HeadRows<T> keyRows(const AttentionInput<T>& in, int64_t b, int64_t h, int64_t tile,
                              const T* data) {
  return {data + in.keyOffset(b, h, tile * kKeyTile), in.stride(),
          minimum(int64_t{kKeyTile}, in.keys() - tile * kKeyTile), in.s.C, in.aligned};
}

// Key j of this lane's 16, in the row of a half.
template <typename A>
MF_DEVICE A& keyOf(A (&scores)[8][4], int half, int j) {
  return scores[j / 2][2 * half + j % 2];
}

// Calls f(row of the block, key of the tile, piece) for the scores of this lane, in vectors of T.
template <typename T, typename F>
MF_DEVICE void forScorePieces(const Accumulate<T> (&scores)[8][4], F f) {
  MF_UNROLL
  for (int half = 0; half < 2; ++half) MF_UNROLL
  for (int j = 0; j < kLaneKeys; j += kVector<T>) {
    Pack16<T> piece;
    MF_UNROLL
    for (int e = 0; e < kVector<T>; ++e)
      piece.elements[e] = static_cast<T>(scores[(j + e) / 2][2 * half + e % 2]);
    f(RowBlock<T>::rowOf(half), laneId() % 4 * kLaneKeys + j, piece);
  }
}

// Over the four lanes of a row, the same bits in each of them.
template <typename A>
MF_DEVICE A rowTotal(A value) {
  value += shuffleXor(value, 1);
  return value + shuffleXor(value, 2);
}

// x . y by the four lanes of a row; called by whole warps, with null pointers for rows that are not there.
template <typename T>
MF_DEVICE Accumulate<T> rowDot(const T* x, const T* y, int64_t width) {
  Accumulate<T> sum = 0;
  for (int64_t c = laneId() % 4; x && c < width; c += 4)
    sum += static_cast<Accumulate<T>>(x[c]) * static_cast<Accumulate<T>>(y[c]);
  return rowTotal(sum);
}

// Two neighbours of a row, of which those from `width` on do not exist.
template <typename T, typename A>
MF_DEVICE void storePair(T* row, int64_t column, int64_t width, bool aligned, A first, A second) {
  struct alignas(2 * sizeof(T)) Pair {
    T first, second;
  };
  if (aligned && column + 1 < width) {
    *reinterpret_cast<Pair*>(row + column) = {static_cast<T>(first), static_cast<T>(second)};
    return;
  }
  if (column < width) row[column] = static_cast<T>(first);
  if (column + 1 < width) row[column + 1] = static_cast<T>(second);
}

// Calls f.template operator()<1>() or <2>(): the panels of a head that is not wide.
template <typename T, typename F>
void dispatchPanels(const AttentionShape& s, F&& f) {
  if constexpr (kMostPanels<T> == 2)
    if (s.C > kPanel<T>) return f.template operator()<2>();
  f.template operator()<1>();
}

}  // namespace mf::cuda
