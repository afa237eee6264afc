#pragma once
// The forward walk over one row block, the same for both kinds: key tiles from the diagonal leftwards.
// `Weights` (stick_breaking.cc, softmax_attention.cc) turns a tile of logits into weights and knows when to
// stop.
#include <cmath>

#include "cpu/attention_tile.h"

namespace MF_CPU_NAMESPACE {
template <typename T>
AttentionInput<T> attentionInput(const AttentionArgs& args) {
  return {args.shape,
          args.q.as<T>(),
          args.k.as<T>(),
          args.v.as<T>(),
          args.keyMask.as<int32_t>(),
          args.documentStart.as<int32_t>(),
          args.attendCurrent,
          args.remainder};
}

template <typename T, int64_t W, typename Weights>
void forwardBlock(const AttentionInput<T>& in, const AttentionArgs& args, const KeyRange& used, int64_t b,
                  int64_t h, int64_t index) {
  using A = Accumulate<T>;
  const int64_t C = in.shape.C, stride = in.stride();
  const int64_t buffer = Scratch<A>::rounded(kKeyBuffer<A, T> * C);
  Scratch<A> scratch(2 * C * W + kKeyTile * W + 2 * buffer);
  A* packed = scratch.take(C * W);
  A* sums = scratch.take(C * W);
  A* tile = scratch.take(kKeyTile * W);
  A* keyBuffer = scratch.take(buffer);
  A* valueBuffer = scratch.take(buffer);

  const RowBlock<A, W> rows(in, used, b, h, index);
  packTransposed<A, W>(in.q + in.rowOffset(b, h, rows.first), stride, rows.count, C,
                       A(kLog2E / std::sqrt(double(C))), packed);
  for (int64_t i = 0; i < C * W; ++i) sums[i] = 0;

  Weights weights(rows);
  for (int64_t J = rows.lastTile(); J >= rows.firstTile(); --J) {
    if (!weights.enter(J)) break;
    const int64_t keys = rows.keysIn(J), offset = in.keyOffset(b, h, J * kKeyTile);
    const KeyRows<A> k = keyRows<A>(in.k + offset, stride, keys, C, keyBuffer);
    dotTile<A, W>(keys, C, k.data, k.stride, packed, tile);
    if (rows.masked(J, keys))
      weights.template apply<true>(rows, J * kKeyTile, keys, tile, sums, C);
    else
      weights.template apply<false>(rows, J * kKeyTile, keys, tile, sums, C);
    const KeyRows<A> v = in.v == in.k ? k : keyRows<A>(in.v + offset, stride, keys, C, valueBuffer);
    addWeighted<A, W>(keys, C, v.data, v.stride, tile, sums);
  }

  alignas(64) A factor[W];
  weights.finish(in, rows, factor, sums);
  unpackTransposed<A, W>(sums, factor, rows.count, C, args.out.as<T>() + in.rowOffset(b, h, rows.first),
                         stride);
  if (args.rowState) weights.save(args, rows, in.rowOffset(b, h, rows.first) / C, in.shape.H);
}

template <typename T, int64_t W, typename Weights>
void forwardRows(const AttentionArgs& args) {
  const AttentionInput<T> in = attentionInput<T>(args);
  const AttentionShape& s = in.shape;
  const int64_t blocks = (in.rows() + W - 1) / W;
  forTasks(s.B * s.H * blocks, s.B * s.H * in.rows() * s.Tk * s.C, [&](int64_t task) {
    const int64_t index = blocks - 1 - task % blocks;  // the longest first
    const int64_t b = task / blocks / s.H, h = task / blocks % s.H;
    const KeyRange used = usedKeys(in.keyMask ? in.keyMask + b * s.Tk : nullptr, s.Tk);
    forwardBlock<T, W, Weights>(in, args, used, b, h, index);
  });
}

}  // namespace MF_CPU_NAMESPACE
