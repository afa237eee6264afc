// Stick-breaking attention, backward: with dA_ij = dout_i . v_j, dl_ij = a_ij dA_ij - sigmoid(l_ij) * sum_{m
// <= j} a_im dA_im, so the sum runs rightwards from the leftmost live tile. There the stick was saved; each
// tile to the right divides it by its own product, recomputed to the same bits, and at the diagonal it is
// exactly 1. The remainder stands as a key left of all others, with weight S_i and value v_i.
#include "cpu/attention_backward.h"
#include "cpu/stick_breaking.h"

namespace MF_CPU_NAMESPACE {
namespace {

template <typename T, int64_t W>
class StickGradient {
  using A = Accumulate<T>;
  using V = Vec<A>;
  static constexpr int64_t L = kLanesOf<A>;
  static constexpr int kVectors = W / L < 4 ? W / L : 4;  // in flight together

 public:
  StickGradient(const AttentionInput<T>& in, const AttentionBackwardArgs& args, const RowBlock<A, W>& rows)
      : firstTile_(rows.lastTile() + 1), withRemainder_(in.remainder) {
    const int64_t index = in.rowOffset(rows.b, rows.h, rows.first) / in.shape.C;
    for (int64_t r = 0; r < W; ++r) {
      stick_[r] = prefix_[r] = ownGradient_[r] = saved_[r] = 0;
      live_[r] = A(1e9);
      remainder_[r] = 1;
      if (r >= rows.count) continue;
      const int32_t live = args.live.as<int32_t>()[index + r * in.shape.H];
      live_[r] = A(live);
      saved_[r] = args.rowState.as<A>()[index + r * in.shape.H];
      if (live < firstTile_) firstTile_ = live;
      if (withRemainder_) ownGradient_[r] = dotOwnValue(in, args, rows, r);
    }
    if (firstTile_ < rows.firstTile()) firstTile_ = rows.firstTile();
    if (firstTile_ <= rows.lastTile())
      for (int64_t r = 0; r < W; ++r) remainder_[r] = 0;
  }

  int64_t firstTile(const RowBlock<A, W>&) const { return firstTile_; }

  // weights: logits in, weights out; dlogits: dout . v in, dlogits out.
  template <bool kMasked>
  void apply(const RowBlock<A, W>& rows, int64_t tile, int64_t keys, A* weights, A* dlogits, A* sigmoids) {
    const int64_t firstKey = tile * kKeyTile;
    for (int64_t r = 0; r < W; r += kVectors * L) {
      V product[kVectors];
      for (int n = 0; n < kVectors; ++n) product[n] = V{} + 1;
      for (int64_t j = keys - 1; j >= 0; --j) {
        A *row = weights + j * W + r, *kept = sigmoids + j * W + r;
        const V position = kMasked ? rows.visiblePosition(firstKey + j) : V{};
#pragma GCC unroll 4
        for (int n = 0; n < kVectors; ++n) {
          V odds = exp2Saturating(load<V>(row + n * L));
          if constexpr (kMasked) odds = rows.sees(position, r + n * L) ? odds : V{};
          const V rest = reciprocal(odds + 1);
          const V sigmoid = odds * rest;
          store(kept + n * L, sigmoid);
          store(row + n * L, sigmoid * product[n]);
          product[n] = maximum(breakOff(product[n], odds, sigmoid, rest), V{} + kLeastProduct<A>);
        }
      }
      V stick[kVectors], prefix[kVectors];
      for (int n = 0; n < kVectors; ++n) enter(rows, tile, keys, r + n * L, product[n], stick[n], prefix[n]);
      for (int64_t j = 0; j < keys; ++j) {
        A *row = weights + j * W + r, *slope = dlogits + j * W + r, *kept = sigmoids + j * W + r;
#pragma GCC unroll 4
        for (int n = 0; n < kVectors; ++n) {
          const V weight = load<V>(row + n * L) * stick[n];
          store(row + n * L, weight);
          const V term = weight * load<V>(slope + n * L);
          prefix[n] += term;
          store(slope + n * L, term - load<V>(kept + n * L) * prefix[n]);
        }
      }
      for (int n = 0; n < kVectors; ++n) store(prefix_ + r + n * L, prefix[n]);
    }
  }

  void finish(const AttentionInput<T>& in, const RowBlock<A, W>& rows, const T* dout, A* dv) const {
    if (!withRemainder_) return;
    for (int64_t r = 0; r < rows.count; ++r) {
      A* own = dv + in.position(rows.first + r) * kPanel<A>;
      for (int64_t c = 0; c < in.shape.C; ++c)
        own[c / kPanel<A> * kPanel<A> * in.shape.Tk + c % kPanel<A>] +=
            remainder_[r] * A(dout[r * in.stride() + c]);
    }
  }

 private:
  static A dotOwnValue(const AttentionInput<T>& in, const AttentionBackwardArgs& args,
                       const RowBlock<A, W>& rows, int64_t r) {
    const T* value = in.v + in.keyOffset(rows.b, rows.h, in.position(rows.first + r));
    const T* dout = args.dout.as<T>() + in.rowOffset(rows.b, rows.h, rows.first + r);
    A sum = 0;
    for (int64_t c = 0; c < in.shape.C; ++c) sum += A(value[c]) * A(dout[c]);
    return sum;
  }

  // The stick at the tile's right edge and the prefix sum at its left edge, given the product over the
  // tile.
  void enter(const RowBlock<A, W>& rows, int64_t tile, int64_t keys, int64_t r, V product, V& stick,
             V& prefix) {
    const V index = broadcast<V>(A(tile)), live = load<V>(live_ + r);
    const V quotient = load<V>(stick_ + r) / product;
    stick = index == live ? load<V>(saved_ + r) : (quotient < 1 ? quotient : V{} + 1);
    const V end = broadcast<V>(A(tile * kKeyTile + keys));
    stick = load<V>(rows.limit + r) < end ? V{} + 1 : stick;  // nothing to see on the right
    stick = index >= live ? stick : V{};
    store(stick_ + r, stick);
    prefix = load<V>(prefix_ + r);
    if (!withRemainder_) return;
    // Live down to its first key: something of the stick remains.
    const auto whole = (index == live) & (index * A(kKeyTile) <= load<V>(rows.start + r));
    const V remainder = whole ? stick * product : load<V>(remainder_ + r);
    store(remainder_ + r, remainder);
    prefix = whole ? remainder * load<V>(ownGradient_ + r) : prefix;
  }

  int64_t firstTile_;
  bool withRemainder_;
  alignas(64) A stick_[W], prefix_[W], saved_[W], live_[W], remainder_[W], ownGradient_[W];
};

}  // namespace

void stickBreakingBackward(const AttentionBackwardArgs& args) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    if (rowsPerBlock(args.shape) == kNarrowRows)
      backwardRows<T, kNarrowRows, StickGradient<T, kNarrowRows>>(args);
    else
      backwardRows<T, kWideRows, StickGradient<T, kWideRows>>(args);
  });
}

}  // namespace MF_CPU_NAMESPACE
