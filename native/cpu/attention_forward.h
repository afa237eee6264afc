#pragma once
// The forward walk over one row block, the same for both kinds: key tiles from the diagonal leftwards.
// `Weights` (stick_breaking.cc, softmax_attention.cc) turns a tile of logits into weights and knows when to
// stop.
#include <cmath>

#include "cpu/attention_few.h"
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
          args.remainder,
          args.keyMask ? args.keyMask.size(1) : 0};
}

// One row block, tile by tile. Queries and sums are [C, W], or [rows, C] where rows are few.
// weights.enter(tile) is false once no further tile matters; weights.apply turns logits into weights and says
// whether what was summed so far must be scaled, per row, by `decays`.
template <typename T, int64_t W, typename Weights>
class ForwardBlock {
  using A = Accumulate<T>;

 public:
  static int64_t scratchSize(const AttentionInput<T>& in) { return 2 * in.shape.C * W; }

  ForwardBlock(const AttentionInput<T>& in, int64_t b, int64_t h, int64_t index, Scratch<A>& scratch)
      : in_(in),
        rows_(in, usedKeys(in.maskOf(b), in.shape.Tk), b, h, index),
        packed_(scratch.take(in.shape.C * W)),
        sums_(scratch.take(in.shape.C * W)),
        weights_(rows_) {
    const int64_t C = in.shape.C;
    const A scale = A(kLog2E / std::sqrt(double(C)));
    if (few())
      widenRows<A>(in.q + offset(), in.stride(), rows_.count, C, scale, packed_);
    else
      packTransposed<A, W>(in.q + offset(), in.stride(), rows_.count, C, scale, packed_);
    for (int64_t i = 0; i < C * (few() ? rows_.count : W); ++i) sums_[i] = 0;
  }

  int64_t firstTile() const { return rows_.firstTile(); }
  int64_t lastTile() const { return rows_.lastTile(); }

  void score(int64_t J, A* tile) const {
    const int64_t keys = rows_.keysIn(J), C = in_.shape.C;
    if (few())
      return dispatchFewRows(rows_.count, [&]<int R>() {
        dotFew<R, W>(keys, C, in_.k + keyOffset(J), in_.stride(), packed_, tile);
      });
    dotTile<A, W>(keys, C, in_.k + keyOffset(J), in_.stride(), packed_, tile);
  }
  bool enter(int64_t J) { return weights_.enter(J); }
  bool weigh(int64_t J, A* tile, A* decays) {
    const int64_t keys = rows_.keysIn(J), firstKey = J * kKeyTile;
    return rows_.masked(J, keys) ? weights_.template apply<true>(rows_, firstKey, keys, tile, decays)
                                 : weights_.template apply<false>(rows_, firstKey, keys, tile, decays);
  }
  // Channels [from, to): scale by decays unless null, add the tile's share.
  void add(int64_t J, const A* tile, const A* decays, int64_t from, int64_t to) {
    using V = Vec<A>;
    constexpr int64_t L = kLanesOf<A>;
    if (few()) return addFewRows(J, tile, decays, from, to);
    if (decays)
      for (int64_t c = from; c < to; ++c)
        for (int64_t r = 0; r < W; r += L)
          store(sums_ + c * W + r, load<V>(sums_ + c * W + r) * load<V>(decays + r));
    addWeighted<A, W>(rows_.keysIn(J), from, to, in_.v + keyOffset(J), in_.stride(), tile, sums_);
  }

  void finish(const AttentionArgs& args) {
    alignas(64) A factor[W];
    const int64_t C = in_.shape.C, stride = in_.stride();
    T* out = args.out.as<T>() + offset();
    weights_.finish(in_, rows_, factor, sums_, few() ? C : 1, few() ? 1 : W);
    if (few()) {
      for (int64_t r = 0; r < rows_.count; ++r)
        for (int64_t c = 0; c < C; ++c) out[r * stride + c] = T(sums_[r * C + c] * factor[r]);
    } else {
      unpackTransposed<A, W>(sums_, factor, rows_.count, C, out, stride);
    }
    if (args.rowState) weights_.save(args, rows_, offset() / in_.shape.C, in_.shape.H);
  }

 private:
  bool few() const { return W == kNarrowRows && rows_.count <= kFewRows; }
  void addFewRows(int64_t J, const A* tile, const A* decays, int64_t from, int64_t to) {
    const int64_t C = in_.shape.C;
    if (decays)
      for (int64_t r = 0; r < rows_.count; ++r)
        for (int64_t c = from; c < to; ++c) sums_[r * C + c] *= decays[r];
    dispatchFewRows(rows_.count, [&]<int R>() {
      addFew<R, W>(rows_.keysIn(J), from, to, C, in_.v + keyOffset(J), in_.stride(), tile, sums_);
    });
  }
  int64_t offset() const { return in_.rowOffset(rows_.b, rows_.h, rows_.first); }
  int64_t keyOffset(int64_t J) const { return in_.keyOffset(rows_.b, rows_.h, J * kKeyTile); }

  const AttentionInput<T>& in_;
  const RowBlock<A, W> rows_;
  A *packed_, *sums_;
  Weights weights_;
};

// On one thread.
template <typename T, int64_t W, typename Weights>
void forwardBlock(const AttentionInput<T>& in, const AttentionArgs& args, int64_t b, int64_t h,
                  int64_t index) {
  using A = Accumulate<T>;
  Scratch<A> scratch(ForwardBlock<T, W, Weights>::scratchSize(in) + kKeyTile * W);
  ForwardBlock<T, W, Weights> block(in, b, h, index, scratch);
  A* tile = scratch.take(kKeyTile * W);
  alignas(64) A decays[W] = {};
  for (int64_t J = block.lastTile(); J >= block.firstTile() && block.enter(J); --J) {
    block.score(J, tile);
    const bool scaled = block.weigh(J, tile, decays);
    block.add(J, tile, scaled ? decays : nullptr, 0, in.shape.C);
  }
  block.finish(args);
}

// The same sums in the same order on all threads, for the few row blocks of decoding: waves of tiles, scored
// in parallel, weighed in turn, then added in parallel by channels. The first wave is short: sticks may be
// spent soon.
template <typename T, int64_t W, typename Weights>
void forwardBlockSpread(const AttentionInput<T>& in, const AttentionArgs& args, int64_t b, int64_t h,
                        int64_t index) {
  using A = Accumulate<T>;
  constexpr int64_t kWave = 16;
  const int64_t C = in.shape.C;
  Scratch<A> scratch(ForwardBlock<T, W, Weights>::scratchSize(in) + kWave * (kKeyTile + 1) * W);
  ForwardBlock<T, W, Weights> block(in, b, h, index, scratch);
  A* tiles = scratch.take(kWave * kKeyTile * W);
  A* decays = scratch.take(kWave * W);
  int64_t wave = 4;
  for (int64_t last = block.lastTile(); last >= block.firstTile(); last -= wave, wave = kWave) {
    const int64_t left = last - block.firstTile() + 1, size = left < wave ? left : wave;
    Pool::instance().parallelFor(size, [&](int64_t i) { block.score(last - i, tiles + i * kKeyTile * W); });
    bool scaled[kWave];
    int64_t weighed = 0;
    for (; weighed < size && block.enter(last - weighed); ++weighed)
      scaled[weighed] = block.weigh(last - weighed, tiles + weighed * kKeyTile * W, decays + weighed * W);
    Pool::instance().parallelFor((C + kSlice - 1) / kSlice, [&](int64_t slice) {
      const int64_t from = slice * kSlice, to = C < from + kSlice ? C : from + kSlice;
      for (int64_t i = 0; i < weighed; ++i)
        block.add(last - i, tiles + i * kKeyTile * W, scaled[i] ? decays + i * W : nullptr, from, to);
    });
    if (weighed < size) break;
  }
  block.finish(args);
}

template <typename T, int64_t W, typename Weights>
void forwardRows(const AttentionArgs& args) {
  const AttentionInput<T> in = attentionInput<T>(args);
  const AttentionShape& s = in.shape;
  const int64_t blocks = (in.rows() + W - 1) / W, tasks = s.B * s.H * blocks;
  const auto place = [&](int64_t task, auto&& body) {
    body(in, args, task / blocks / s.H, task / blocks % s.H,
         blocks - 1 - task % blocks);  // the longest first
  };
  // Enough keys and channels to share out one block, and too few blocks to keep the threads busy.
  if (tasks < Pool::instance().threads() && s.Tk >= 4 * kKeyTile && s.C >= 2 * kSlice) {
    for (int64_t task = 0; task < tasks; ++task) place(task, forwardBlockSpread<T, W, Weights>);
  } else {
    forTasks(tasks, s.B * s.H * in.rows() * s.Tk * s.C,
             [&](int64_t task) { place(task, forwardBlock<T, W, Weights>); });
  }
}

}  // namespace MF_CPU_NAMESPACE
