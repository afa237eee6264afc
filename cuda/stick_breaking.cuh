#pragma once
// Stick-breaking weights: a_ij = sigmoid(l_ij) * S_ij with the stick S_ij = prod_{j < m <= i} (1 -
// sigmoid(l_im)). A tile has the product of its own columns from the right, so that the stick is multiplied
// once per tile. Backward, with dA_ij = dout_i . v_j: dl_ij = a_ij dA_ij - sigmoid(l_ij) * sum_{m <= j} a_im
// dA_im. The methods are called by the thread that owns the row.
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

template <typename A>
struct Break {
  A sigmoid, product;  // the product after this key
};
// `product` times 1 - sigmoid(logit), none of it by a cancelling difference: near 0 the quotient keeps the
// bits that sigmoid drops, near 1 the difference keeps those that 1 + odds drops.
template <typename A>
MF_DEVICE Break<A> breakOff(A product, A logit) {
  const A u = std::exp(-std::abs(logit)), r = A(1) / (A(1) + u);
  if (logit < A(0)) return {u * r, maximum(product - product * (u * r), kLeastProduct<A>)};
  return {r, maximum(product * (u * r), kLeastProduct<A>)};
}

template <typename T>
class StickWeights {
  using A = Accumulate<T>;

 public:
  MF_DEVICE explicit StickWeights(const RowBlock<T>& rows) : stick_(threadId() < rows.count ? A(1) : A(0)) {}

  // Freezes the row when its stick is spent; whether it is live.
  MF_DEVICE bool enter(int64_t tile) {
    if (!(stick_ <= kSpentStick<T>)) {  // NaN stays
      saved_ = stick_;
      live_ = static_cast<int32_t>(tile);
      return true;
    }
    stick_ = A(0);
    return false;
  }
  // row: logits in, weights out.
  MF_DEVICE void apply(const RowBlock<T>& rows, int64_t firstKey, A* row) {
    A product = A(1);
    for (int j = kTile - 1; j >= 0; --j) {
      A weight = A(0);
      if (rows.sees(firstKey + j)) {
        const Break<A> next = breakOff(product, row[j]);
        weight = next.sigmoid * product * stick_;
        product = next.product;
      }
      row[j] = weight;
    }
    stick_ *= product;
  }
  // What the sums so far are multiplied by before the tile's values are added.
  MF_DEVICE A decay() const { return A(1); }
  MF_DEVICE A finalFactor() const { return A(1); }
  MF_DEVICE A remainder() const { return stick_; }
  MF_DEVICE A state() const { return saved_; }
  MF_DEVICE int32_t live() const { return live_; }
  static constexpr bool kDecays = false;

 private:
  A stick_, saved_ = A(1);
  int32_t live_ = 0;
};

template <typename T>
class StickGradient {
  using A = Accumulate<T>;

 public:
  static constexpr bool kFromLeft = true;

  // ownGradient: dout . v of the row's own position, 0 without remainder.
  MF_DEVICE void begin(const RowBlock<T>& rows, A state, int32_t live, bool withRemainder, A ownGradient) {
    stick_ = prefix_ = A(0);
    saved_ = state;
    live_ = threadId() < rows.count ? live : int64_t{1} << 40;
    withRemainder_ = withRemainder;
    ownGradient_ = ownGradient;
    remainder_ = A(1);
  }
  MF_DEVICE int64_t firstTile() const { return live_; }
  MF_DEVICE void beginTiles() { remainder_ = A(0); }

  // Takes up at a tile what the row pass had at its edges.
  MF_DEVICE void resume(A stick, A prefix) {
    stick_ = stick;
    prefix_ = prefix;
  }
  MF_DEVICE A stick() const { return stick_; }
  MF_DEVICE A prefix() const { return prefix_; }
  MF_DEVICE A remainder() const { return remainder_; }

  // weights: logits in, weights up to the stick out; sigmoids out. Returns the product over the tile.
  MF_DEVICE static A breakTile(const RowBlock<T>& rows, int64_t firstKey, A* weights, A* sigmoids) {
    A product = A(1);
    for (int j = kTile - 1; j >= 0; --j) {
      A sigmoid = A(0), weight = A(0);
      if (rows.sees(firstKey + j)) {
        const Break<A> next = breakOff(product, weights[j]);
        sigmoid = next.sigmoid;
        weight = sigmoid * product;
        product = next.product;
      }
      weights[j] = weight;
      sigmoids[j] = sigmoid;
    }
    return product;
  }

  // The row pass: the stick at the tile's right edge, from that at the last tile's, and the prefix at its
  // left edge.
  MF_DEVICE void enter(const RowBlock<T>& rows, int64_t tile, int64_t keysEnd, A product) {
    const A quotient = stick_ / product;
    stick_ = tile == live_ ? saved_ : (quotient > A(1) ? A(1) : quotient);
    if (rows.limit < keysEnd) stick_ = A(1);  // nothing to see on the right
    if (tile < live_) stick_ = A(0);
    if (!withRemainder_ || tile != live_ || tile * kTile > rows.start) return;
    // Live down to its first key: something of the stick remains.
    remainder_ = stick_ * product;
    prefix_ = remainder_ * ownGradient_;
  }

  // dlogits: dout . v in, dlogits out; weights are multiplied by the stick.
  MF_DEVICE void apply(A* weights, A* dlogits, const A* sigmoids) {
    for (int j = 0; j < kTile; ++j) {
      const A weight = weights[j] * stick_, term = weight * dlogits[j];
      weights[j] = weight;
      prefix_ += term;
      dlogits[j] = term - sigmoids[j] * prefix_;
    }
  }

 private:
  A stick_, prefix_, saved_, ownGradient_, remainder_;
  int64_t live_;
  bool withRemainder_;
};

}  // namespace mf::cuda
