// Stick-breaking attention, forward: a_ij = sigmoid(l_ij) * S_ij with the stick S_ij = prod_{j < m <= i} (1 -
// sigmoid(l_im)), l_ij = q_i . k_j / sqrt(C). Tiles run leftwards from the diagonal, each with the product of
// its own columns from the right, so that the stick is multiplied once per tile. A row whose stick is spent
// is frozen: later keys have weight 0, and a block stops when all its rows are.
#include <cmath>

#include "cpu/attention_forward.h"
#include "cpu/stick_breaking.h"

namespace MF_CPU_NAMESPACE {
namespace {

template <typename T, int64_t W>
class StickWeights {
  using A = Accumulate<T>;
  using V = Vec<A>;
  static constexpr int64_t L = kLanesOf<A>;
  static constexpr int kVectors = W / L < 4 ? W / L : 4;  // in flight together

 public:
  explicit StickWeights(const RowBlock<A, W>& rows) {
    for (int64_t r = 0; r < W; ++r) {
      stick_[r] = r < rows.count ? A(1) : A(0);
      saved_[r] = 1;
      live_[r] = 0;
    }
  }

  // Freezes the rows whose stick is spent; false when no row is live.
  bool enter(int64_t tile) {
    const V spent = V{} + kSpentStick<T>, index = broadcast<V>(A(tile));
    auto any = V{} > V{};
    for (int64_t r = 0; r < W; r += L) {
      const V stick = load<V>(stick_ + r);
      const auto live = stick > spent;
      store(saved_ + r, live ? stick : load<V>(saved_ + r));
      store(live_ + r, live ? index : load<V>(live_ + r));
      store(stick_ + r, live ? stick : V{});
      any |= live;
    }
    bool some = false;
    for (int64_t i = 0; i < L; ++i) some |= any[i] != 0;
    return some;
  }

  template <bool kMasked>
  bool apply(const RowBlock<A, W>& rows, int64_t firstKey, int64_t keys, A* tile, A*) {
    for (int64_t r = 0; r < W; r += kVectors * L) {
      V stick[kVectors], product[kVectors];
      for (int n = 0; n < kVectors; ++n) {
        stick[n] = load<V>(stick_ + r + n * L);
        product[n] = V{} + 1;
      }
      for (int64_t j = keys - 1; j >= 0; --j) {
        A* row = tile + j * W + r;
        const V position = kMasked ? rows.visiblePosition(firstKey + j) : V{};
#pragma GCC unroll 4
        for (int n = 0; n < kVectors; ++n) {
          V odds = exp2Saturating(load<V>(row + n * L));
          if constexpr (kMasked) odds = rows.sees(position, r + n * L) ? odds : V{};
          const V rest = reciprocal(odds + 1);  // 1 - sigmoid
          const V sigmoid = odds * rest;
          store(row + n * L, sigmoid * product[n] * stick[n]);
          product[n] = maximum(breakOff(product[n], odds, sigmoid, rest), V{} + kLeastProduct<A>);
        }
      }
      for (int n = 0; n < kVectors; ++n) store(stick_ + r + n * L, stick[n] * product[n]);
    }
    return false;
  }

  // Row r's sum of channel c is sums[r * rowStep + c * channelStep].
  void finish(const AttentionInput<T>& in, const RowBlock<A, W>& rows, A* factor, A* sums, int64_t rowStep,
              int64_t channelStep) const {
    for (int64_t r = 0; r < W; ++r) factor[r] = 1;
    if (!in.remainder) return;
    for (int64_t r = 0; r < rows.count; ++r) {
      const T* own = in.v + in.keyOffset(rows.b, rows.h, in.position(rows.first + r));
      for (int64_t c = 0; c < in.shape.C; ++c) sums[r * rowStep + c * channelStep] += stick_[r] * A(own[c]);
    }
  }

  void save(const AttentionArgs& args, const RowBlock<A, W>& rows, int64_t index, int64_t step) const {
    for (int64_t r = 0; r < rows.count; ++r) {
      args.rowState.as<A>()[index + r * step] = saved_[r];
      args.live.as<int32_t>()[index + r * step] = static_cast<int32_t>(live_[r]);
    }
  }

 private:
  alignas(64) A stick_[W];  // what is left to the left of the tiles seen
  alignas(64) A saved_[W];  // the same at the right edge of the leftmost live tile, live_
  alignas(64) A live_[W];
};

}  // namespace

void stickBreaking(const AttentionArgs& args) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    if (args.shape.Tq * args.shape.K <= kNarrowRows)
      forwardRows<T, kNarrowRows, StickWeights<T, kNarrowRows>>(args);
    else
      forwardRows<T, kWideRows, StickWeights<T, kWideRows>>(args);
  });
}

}  // namespace MF_CPU_NAMESPACE
