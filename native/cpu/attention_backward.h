#pragma once
// The backward walk over one row block: key tiles from the leftmost live one rightwards to the diagonal. dq
// stays in scratch; dk and dv are added into the workspace of the block's group and reduced afterwards in the
// groups' order. `Gradient` (stick_breaking_backward.cc, softmax_attention.cc) turns logits and dout . v into
// weights and dlogits.
#include <cmath>

#include "cpu/attention_tile.h"

namespace MF_CPU_NAMESPACE {
template <typename T>
AttentionInput<T> attentionInput(const AttentionBackwardArgs& args) {
  return {args.shape,
          args.q.as<T>(),
          args.k.as<T>(),
          args.v.as<T>(),
          args.keyMask.as<int32_t>(),
          args.documentStart.as<int32_t>(),
          args.attendCurrent,
          args.remainder,
          args.shape.Tk};
}

inline int64_t rowsPerBlock(const AttentionShape& shape) {
  return shape.Tq * shape.K <= kNarrowRows ? kNarrowRows : kWideRows;
}

// Row blocks are dealt to this many groups per head, each with its own dk and dv: enough for 8 tasks while
// the workspace stays moderate. A function of the shape alone, so that the sums have one order.
inline int64_t rowGroups(const AttentionShape& shape) {
  const int64_t heads = shape.B * shape.H, W = rowsPerBlock(shape);
  const int64_t blocks = (shape.Tq * shape.K + W - 1) / W;
  int64_t groups = heads == 0 ? 1 : (8 + heads - 1) / heads;
  const int64_t affordable = shape.Tk < 8192 ? 16384 / (shape.Tk + 1) : 2;
  if (groups > affordable) groups = affordable;
  if (groups > blocks) groups = blocks;
  return groups < 1 ? 1 : groups;
}

// The workspace: [B, H, groups, {dk, dv}] of [panels][Tk, panel].
template <typename A>
inline int64_t gradientPart(const AttentionShape& shape) {
  return paddedWidth<A>(shape.C) * shape.Tk;
}

template <typename T, int64_t W>
struct BackwardScratch {
  using A = Accumulate<T>;
  A *q, *dout, *qPanels, *doutPanels, *dq, *weights, *dlogits, *sigmoid;

  explicit BackwardScratch(int64_t C) {
    const int64_t padded = paddedWidth<A>(C);
    Scratch<A> scratch(3 * C * W + 2 * padded * W + 3 * kKeyTile * W);
    q = scratch.take(C * W);
    dout = scratch.take(C * W);
    qPanels = scratch.take(padded * W);
    doutPanels = scratch.take(padded * W);
    dq = scratch.take(C * W);
    weights = scratch.take(kKeyTile * W);
    dlogits = scratch.take(kKeyTile * W);
    sigmoid = scratch.take(kKeyTile * W);
  }
};

// dk and dv: the group's part of the workspace.
template <typename T, int64_t W, typename Gradient>
void backwardBlock(const AttentionInput<T>& in, const AttentionBackwardArgs& args, const KeyRange& used,
                   int64_t b, int64_t h, int64_t index, Accumulate<T>* dk, Accumulate<T>* dv) {
  using A = Accumulate<T>;
  const int64_t C = in.shape.C, Tk = in.shape.Tk, stride = in.stride();
  const RowBlock<A, W> rows(in, used, b, h, index);
  const int64_t offset = in.rowOffset(b, h, rows.first);
  const T* dout = args.dout.as<T>() + offset;

  const BackwardScratch<T, W> s(C);
  packTransposed<A, W>(in.q + offset, stride, rows.count, C, A(kLog2E / std::sqrt(double(C))), s.q);
  packTransposed<A, W>(dout, stride, rows.count, C, A(1), s.dout);
  packPanels<A, W>(in.q + offset, stride, rows.count, C, s.qPanels);
  packPanels<A, W>(dout, stride, rows.count, C, s.doutPanels);
  for (int64_t i = 0; i < C * W; ++i) s.dq[i] = 0;

  Gradient gradient(in, args, rows);
  for (int64_t J = gradient.firstTile(rows); J <= rows.lastTile(); ++J) {
    const int64_t firstKey = J * kKeyTile, keys = rows.keysIn(J), at = in.keyOffset(b, h, firstKey);
    dotTile<A, W>(keys, C, in.k + at, stride, s.q, s.weights);
    dotTile<A, W>(keys, C, in.v + at, stride, s.dout, s.dlogits);
    if (rows.masked(J, keys))
      gradient.template apply<true>(rows, J, keys, s.weights, s.dlogits, s.sigmoid);
    else
      gradient.template apply<false>(rows, J, keys, s.weights, s.dlogits, s.sigmoid);
    addWeighted<A, W>(keys, 0, C, in.k + at, stride, s.dlogits, s.dq);
    addOuter<A, W>(keys, C, s.weights, s.doutPanels, dv + firstKey * kPanel<A>, Tk);
    addOuter<A, W>(keys, C, s.dlogits, s.qPanels, dk + firstKey * kPanel<A>, Tk);
  }
  gradient.finish(in, rows, dout, dv);

  alignas(64) A factor[W];
  for (int64_t r = 0; r < W; ++r) factor[r] = A(1 / std::sqrt(double(C)));
  unpackTransposed<A, W>(s.dq, factor, rows.count, C, args.dq.as<T>() + offset, stride);
}

// dk and dv of keys [from, to) of a head: the groups' sums, converted; zeros beyond Tk.
template <typename T>
void reduceKeyGradients(const AttentionInput<T>& in, const AttentionBackwardArgs& args, int64_t groups,
                        int64_t b, int64_t h, int64_t from, int64_t to) {
  using A = Accumulate<T>;
  const AttentionShape& s = in.shape;
  const int64_t part = gradientPart<A>(s);
  const A* base = args.workspace.as<A>() + (b * s.H + h) * groups * 2 * part;
  const A scale[2] = {A(1 / std::sqrt(double(s.C))), A(1)};
  T* out[2] = {args.dk.as<T>(), args.dv.as<T>()};
  for (int which = 0; which < 2; ++which)
    for (int64_t j = from; j < to; ++j) {
      T* row = out[which] + in.keyOffset(b, h, j);
      if (j >= s.Tk) {
        for (int64_t c = 0; c < s.C; ++c) row[c] = T(0.0f);
        continue;
      }
      for (int64_t c0 = 0; c0 < s.C; c0 += kPanel<A>) {
        const int64_t width = s.C - c0 < kPanel<A> ? s.C - c0 : kPanel<A>;
        const A* first = base + which * part + c0 * s.Tk + j * kPanel<A>;
        alignas(64) A sum[kPanel<A>];
        for (int64_t c = 0; c < kPanel<A>; ++c) sum[c] = first[c];
        for (int64_t g = 1; g < groups; ++g)
          for (int64_t c = 0; c < kPanel<A>; ++c) sum[c] += first[g * 2 * part + c];
        for (int64_t c = 0; c < width; ++c) row[c0 + c] = T(sum[c] * scale[which]);
      }
    }
}

template <typename T, int64_t W, typename Gradient>
void backwardRows(const AttentionBackwardArgs& args) {
  using A = Accumulate<T>;
  const AttentionInput<T> in = attentionInput<T>(args);
  const AttentionShape& s = in.shape;
  const int64_t groups = rowGroups(s), blocks = (in.rows() + W - 1) / W, part = gradientPart<A>(s);
  const int64_t work = s.B * s.H * in.rows() * s.Tk * s.C;
  forTasks(s.B * s.H * groups, work, [&](int64_t task) {
    const int64_t group = task % groups, b = task / groups / s.H, h = task / groups % s.H;
    const KeyRange used = usedKeys(in.maskOf(b), s.Tk);
    A* dk = args.workspace.as<A>() + task * 2 * part;
    for (int64_t i = 0; i < 2 * part; ++i) dk[i] = 0;
    for (int64_t index = group; index < blocks; index += groups)
      backwardBlock<T, W, Gradient>(in, args, used, b, h, index, dk, dk + part);
  });
  constexpr int64_t kKeys = 64;
  const int64_t chunks = (s.keyCapacity + kKeys - 1) / kKeys;
  forTasks(s.B * s.H * chunks, work, [&](int64_t task) {
    const int64_t from = task % chunks * kKeys, b = task / chunks / s.H, h = task / chunks % s.H;
    const int64_t to = s.keyCapacity < from + kKeys ? s.keyCapacity : from + kKeys;
    reduceKeyGradients<T>(in, args, groups, b, h, from, to);
  });
}

}  // namespace MF_CPU_NAMESPACE
