#pragma once
// What the backward passes share: what the row pass leaves for the column pass in the workspace.
#include "cuda/softmax_attention.cuh"
#include "cuda/stick_breaking.cuh"

namespace mf::cuda {

// sticks and prefixes [B * H, tiles, rows] at the edges of every tile, not for wide heads; rowValues [B * H,
// rows]: the remainder (stick-breaking) or the mean gradient (softmax); firstTiles [B * H, row blocks].
template <typename A>
struct BackwardState {
  A *rowValues, *firstTiles, *sticks, *prefixes;
  int64_t rows, blocks, tiles;

  BackwardState(A* workspace, const AttentionShape& s, bool wide)
      : rowValues(workspace),
        firstTiles(workspace + s.B * s.H * rowsOf(s)),
        sticks(firstTiles + s.B * s.H * ceilDiv(rowsOf(s), kRowBlock)),
        prefixes(sticks + s.B * s.H * rowsOf(s) * ceilDiv(s.Tk, kKeyTile)),
        rows(rowsOf(s)),
        blocks(ceilDiv(rowsOf(s), kRowBlock)),
        tiles(ceilDiv(s.Tk, kKeyTile)) {
    if (wide) sticks = prefixes = nullptr;
  }
  static int64_t elements(const AttentionShape& s, bool wide) {
    const int64_t rows = rowsOf(s);
    return s.B * s.H * (rows + ceilDiv(rows, kRowBlock) + (wide ? 0 : 2 * rows * ceilDiv(s.Tk, kKeyTile)));
  }
  static int64_t rowsOf(const AttentionShape& s) { return s.Tq * s.K; }

  MF_DEVICE int64_t at(int64_t head, int64_t tile, int64_t row) const {
    return (head * tiles + tile) * rows + row;
  }
  MF_DEVICE int64_t firstTile(int64_t head, int64_t block) const {
    return static_cast<int64_t>(firstTiles[head * blocks + block]);
  }
};

// What a pass makes: gradients of keys (from those of the logits), of values (from the weights), or both.
enum class Of { Keys, Values, Both };

template <typename T>
struct Backward {
  using A = Accumulate<T>;
  AttentionInput<T> in;
  const T *out, *dout;
  const A* rowState;
  const int32_t* live;
  T *dq, *dk, *dv;
  BackwardState<A> state;
};

template <typename T>
Backward<T> backwardOf(const AttentionBackwardArgs& args) {
  using A = Accumulate<T>;
  const AttentionShape& s = args.shape;
  Backward<T> pass{attentionInput<T>(args, args.v),
                   args.out.as<T>(),
                   args.dout.as<T>(),
                   args.rowState.as<A>(),
                   args.live.as<int32_t>(),
                   args.dq.as<T>(),
                   args.dk.as<T>(),
                   args.dv.as<T>(),
                   BackwardState<A>(args.workspace.as<A>(), s, isWide<T>(s))};
  pass.in.remainder = args.remainder;
  for (const View* view : {&args.dout, &args.dq, &args.dk, &args.dv})
    pass.in.aligned = pass.in.aligned && isAligned<T>(view->data, s.C);
  return pass;
}

// The first row block of which a row stands at or behind the first key of a tile; the number of blocks when
// there is none.
template <typename T>
MF_DEVICE int64_t firstBlock(const AttentionInput<T>& in, int64_t tile) {
  const int64_t key = tile * kKeyTile + (in.attendCurrent ? 0 : 1);
  const int64_t row = maximum(key - (in.s.Tk - in.s.Tq), int64_t{0}) * in.s.K;
  return row < in.rows() ? row / kRowBlock : ceilDiv(in.rows(), kRowBlock);
}

// Makes ready the gradient of the rows of a block; returns its first tile.
template <typename T>
MF_DEVICE int beginRows(const Backward<T>& pass, const RowBlock<T>& rows, StickGradient<T>& gradient) {
  using A = Accumulate<T>;
  MF_UNROLL
  for (int half = 0; half < 2; ++half) {
    const bool has = rows.has(half);
    const int64_t row = rows.first + rows.rowOf(half), offset = pass.in.rowOffset(rows.b, rows.h, row);
    A own = A(0);
    if (pass.in.remainder)
      own = rowDot(has ? pass.dout + offset : nullptr,
                   has ? pass.in.v + pass.in.keyOffset(rows.b, rows.h, pass.in.position(row)) : nullptr,
                   pass.in.s.C);
    gradient.begin(rows, half, has ? pass.rowState[offset / pass.in.s.C] : A(0),
                   has ? pass.live[offset / pass.in.s.C] : 0, pass.in.remainder, own);
  }
  return gradient.beginTiles(rows);
}
template <typename T>
MF_DEVICE int beginRows(const Backward<T>& pass, const RowBlock<T>& rows, SoftmaxGradient<T>& gradient) {
  using A = Accumulate<T>;
  MF_UNROLL
  for (int half = 0; half < 2; ++half) {
    const bool has = rows.has(half);
    const int64_t offset = pass.in.rowOffset(rows.b, rows.h, rows.first + rows.rowOf(half));
    const A mean = rowDot(has ? pass.dout + offset : nullptr, pass.out + offset, pass.in.s.C);
    gradient.begin(half, has ? pass.rowState[offset / pass.in.s.C] : A(0), mean);
  }
  return rows.firstTile;
}

// The row pass's last words: what is left of each row, and the block's first tile.
template <typename T, typename Gradient>
MF_DEVICE void endRows(const Backward<T>& pass, const RowBlock<T>& rows, const Gradient& gradient,
                       int first) {
  const int64_t head = rows.b * pass.in.s.H + rows.h;
  MF_UNROLL
  for (int half = 0; half < 2; ++half)
    if (rows.has(half) && laneId() % 4 == 0)
      pass.state.rowValues[head * pass.state.rows + rows.first + rows.rowOf(half)] = gradient.rowValue(half);
  if (threadId() == 0)
    pass.state.firstTiles[head * pass.state.blocks + rows.first / kRowBlock] =
        static_cast<Accumulate<T>>(first);
}

// What the remainders add to element (key, column) of dv: the key is the own one of the K rows of its
// position.
template <typename T>
MF_DEVICE Accumulate<T> remainderGradient(const Backward<T>& pass, int64_t head, int64_t key,
                                          int64_t column) {
  using A = Accumulate<T>;
  const AttentionShape& s = pass.in.s;
  const int64_t i = key - (s.Tk - s.Tq);
  A sum = A(0);
  if (!pass.in.remainder || i < 0 || i >= s.Tq) return sum;
  for (int64_t k = 0; k < s.K; ++k) {
    const int64_t row = i * s.K + k;
    sum += pass.state.rowValues[head * pass.state.rows + row] *
           static_cast<A>(pass.dout[pass.in.rowOffset(head / s.H, head % s.H, row) + column]);
  }
  return sum;
}

}  // namespace mf::cuda
