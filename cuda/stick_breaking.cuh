#pragma once
// Stick-breaking weights: a_ij = sigmoid(l_ij) * S_ij with the stick S_ij = prod_{j < m <= i} (1 -
// sigmoid(l_im)). A lane has the product of its own keys from the right, then the four lanes of a row share
// theirs, so that the stick is multiplied once per lane and tile. Backward, with dA_ij = dout_i . v_j: dl_ij
// = a_ij dA_ij - sigmoid(l_ij) * sum_{m <= j} a_im dA_im.
#include "cuda/attention.cuh"

namespace mf::cuda {

// A row is frozen once its stick is below this; see native/cpu/stick_breaking.h for the bounds.
template <typename T>
constexpr Accumulate<T> kSpentStick = 2e-9f;
template <>
inline constexpr double kSpentStick<double> = 1e-26;
template <>
inline constexpr float kSpentStick<bf16> = 1e-4f;

// Floor of the product over a tile: far below a spent stick, far above denormals.
template <typename A>
constexpr A kLeastProduct = A(1e-25f);
template <>
inline constexpr double kLeastProduct<double> = 1e-100;

MF_DEVICE float powerOfTwo(float x) {
  return exp2Approximate(x);
}
MF_DEVICE double powerOfTwo(double x) {
  return std::exp2(x);
}
MF_DEVICE float inverse(float x) {
  return reciprocalApproximate(x);
}
MF_DEVICE double inverse(double x) {
  return 1 / x;
}

template <typename A>
struct Break {
  A sigmoid, product;  // the product after this key
};
// `product` times 1 - sigmoid(logit), none of it by a cancelling difference: near 0 the quotient keeps the
// bits that sigmoid drops, near 1 the difference keeps those that 1 + odds drops. The logit is in powers of
// two.
template <typename A>
MF_DEVICE Break<A> breakOff(A product, A logit) {
  const A u = powerOfTwo(-std::abs(logit)), r = inverse(A(1) + u), small = u * r;
  const bool negative = logit < A(0);
  const A rest = negative ? product - product * small : product * small;
  return {negative ? small : r, maximum(rest, kLeastProduct<A>)};
}

// Breaks a lane's keys of one row from the right: calls f(j, sigmoid, product right of j). Returns the
// product of all of them.
template <typename A, typename F>
MF_DEVICE A breakKeys(A (&scores)[8][4], int half, uint32_t seen, A scale, F f) {
  A product = A(1);
  MF_UNROLL
  for (int j = kLaneKeys - 1; j >= 0; --j) {
    const A logit = seen >> j & 1 ? keyOf(scores, half, j) * scale : A(-INFINITY);
    const Break<A> next = breakOff(product, logit);
    f(j, next.sigmoid, product);
    product = next.product;
  }
  return product;
}

// From each lane's product over its keys: that over the lanes right of it, and that over the row.
template <typename A>
MF_DEVICE void productsOfRow(A own, A& right, A& total) {
  const A neighbour = shuffleXor(own, 1), pair = own * neighbour, other = shuffleXor(pair, 2);
  const int lane = laneId() % 4;
  right = (lane % 2 == 0 ? neighbour : A(1)) * (lane < 2 ? other : A(1));
  total = maximum(pair * other, kLeastProduct<A>);
}

template <typename T>
class StickWeights {
  using A = Accumulate<T>;

 public:
  static constexpr bool kDecays = false;

  MF_DEVICE explicit StickWeights(const RowBlock<T>& rows) {
    MF_UNROLL
    for (int half = 0; half < 2; ++half) stick_[half] = rows.has(half) ? A(1) : A(0);
  }

  // Freezes rows whose stick is spent; whether one of this lane's is live.
  MF_DEVICE bool enter(int tile) {
    bool any = false;
    MF_UNROLL
    for (int half = 0; half < 2; ++half) {
      if (stick_[half] <= kSpentStick<T>) {
        stick_[half] = A(0);
        continue;
      }
      saved_[half] = stick_[half];  // NaN stays
      live_[half] = tile;
      any = true;
    }
    return any;
  }
  // scores: products q . k in, weights out.
  MF_DEVICE void apply(A (&scores)[8][4], const uint32_t (&seen)[2], A log2Scale) {
    MF_UNROLL
    for (int half = 0; half < 2; ++half) {
      const A own = breakKeys(scores, half, seen[half], log2Scale, [&](int j, A sigmoid, A product) {
        keyOf(scores, half, j) = sigmoid * product;
      });
      A right, total;
      productsOfRow(own, right, total);
      right *= stick_[half];
      MF_UNROLL
      for (int j = 0; j < kLaneKeys; ++j) keyOf(scores, half, j) *= right;
      stick_[half] *= total;
    }
  }
  // What the sums so far are multiplied by before a tile's values are added.
  MF_DEVICE A decay(int) const { return A(1); }
  // Called by whole warps.
  MF_DEVICE void finish() {}
  MF_DEVICE A finalFactor(int) const { return A(1); }
  MF_DEVICE A remainder(int half) const { return stick_[half]; }
  MF_DEVICE A state(int half) const { return saved_[half]; }
  MF_DEVICE int32_t live(int half) const { return live_[half]; }

 private:
  A stick_[2], saved_[2] = {A(1), A(1)};
  int32_t live_[2] = {0, 0};
};

// The gradient runs from the leftmost live tile, where the stick was saved, to the right; each tile divides
// it by its own product, and at the diagonal it is exactly 1. The remainder stands as a key left of all
// others.
template <typename T>
class StickGradient {
  using A = Accumulate<T>;

 public:
  static constexpr bool kSticks = true;

  // state and live: what forward saved; ownGradient: dout . v of the row's own position, used with a
  // remainder.
  MF_DEVICE void begin(const RowBlock<T>& rows, int half, A state, int live, bool withRemainder,
                       A ownGradient) {
    stick_[half] = prefix_[half] = A(0);
    saved_[half] = state;
    live_[half] = rows.has(half) ? live : kNever;
    withRemainder_ = withRemainder;
    ownGradient_[half] = ownGradient;
    remainder_[half] = A(1);
  }
  // Called by all threads of the block; its first tile.
  MF_DEVICE int beginTiles(const RowBlock<T>& rows) {
    const int first = maximum(rows.firstTile, blockReduce(minimum(live_[0], live_[1]), Min{}));
    if (first <= rows.lastTile) remainder_[0] = remainder_[1] = A(0);
    return first;
  }

  // Takes up at a tile what the row pass had at its edges.
  MF_DEVICE void resume(int half, A stick, A prefix) {
    stick_[half] = stick;
    prefix_[half] = prefix;
  }
  MF_DEVICE A stick(int half) const { return stick_[half]; }
  MF_DEVICE A prefix(int half) const { return prefix_[half]; }
  MF_DEVICE A rowValue(int half) const { return remainder_[half]; }

  // scores: q . k in; weights out where they are wanted. slopes: dout . v in and gradients of the logits out,
  // where those are wanted. `entered(half, product)` is called in between, when stick and prefix must be
  // those at the tile's edges. Weights and slopes together cost a register for each of a row's keys.
  template <bool kWeights, bool kSlopes, typename F>
  MF_DEVICE void apply(A (&scores)[8][4], A (&slopes)[8][4], const uint32_t (&seen)[2], A log2Scale,
                       F entered) {
    MF_UNROLL
    for (int half = 0; half < 2; ++half) {
      A sigmoids[kWeights && kSlopes ? kLaneKeys : 1];
      const A own = breakKeys(scores, half, seen[half], log2Scale, [&](int j, A sigmoid, A product) {
        keyOf(scores, half, j) = kWeights ? sigmoid * product : sigmoid;
        if constexpr (kWeights && kSlopes) sigmoids[j] = sigmoid;
        if constexpr (!kWeights) keyOf(slopes, half, j) *= sigmoid * product;
      });
      A right, total;
      productsOfRow(own, right, total);
      entered(half, total);
      right *= stick_[half];
      A sum = A(0);
      MF_UNROLL
      for (int j = 0; j < kLaneKeys; ++j) {
        (kWeights ? keyOf(scores, half, j) : keyOf(slopes, half, j)) *= right;
        if constexpr (kSlopes) {
          if constexpr (kWeights) keyOf(slopes, half, j) *= keyOf(scores, half, j);
          sum += keyOf(slopes, half, j);
        }
      }
      if constexpr (kSlopes) {
        const A neighbour = shuffleXor(sum, 1), pair = sum + neighbour, other = shuffleXor(pair, 2);
        const int lane = laneId() % 4;
        A prefix = prefix_[half] + (lane < 2 ? A(0) : other) + (lane % 2 == 0 ? A(0) : neighbour);
        MF_UNROLL
        for (int j = 0; j < kLaneKeys; ++j) {
          A& slope = keyOf(slopes, half, j);
          prefix += slope;
          if constexpr (kWeights)
            slope -= sigmoids[j] * prefix;
          else
            slope -= keyOf(scores, half, j) * prefix;
        }
        prefix_[half] += pair + other;
      }
    }
  }

  // The row pass: the stick at the tile's right edge, from that at the last tile's, and the prefix at its
  // left edge.
  MF_DEVICE void enter(const RowBlock<T>& rows, int tile, int half, A product) {
    const A quotient = stick_[half] / product;
    A stick = tile == live_[half] ? saved_[half] : (quotient > A(1) ? A(1) : quotient);
    if (rows.limit[half] < (tile + 1) * kKeyTile) stick = A(1);  // nothing to see on the right
    if (tile < live_[half]) stick = A(0);
    stick_[half] = stick;
    if (!withRemainder_ || tile != live_[half] || tile * kKeyTile > rows.start[half]) return;
    // Live down to its first key: something of the stick remains.
    remainder_[half] = stick * product;
    prefix_[half] = remainder_[half] * ownGradient_[half];
  }

 private:
  static constexpr int kNever = 1 << 30;
  A stick_[2], prefix_[2], saved_[2], ownGradient_[2], remainder_[2];
  int live_[2];
  bool withRemainder_;
};

}  // namespace mf::cuda
