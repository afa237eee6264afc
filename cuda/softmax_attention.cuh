#pragma once
// Softmax weights with the online maximum: those of a tile are exp(l - m) for the running maximum m of the
// row, and what was summed before is scaled when m grows. Backward recomputes them from the log-sum-exp, with
// dl_ij = a_ij (dA_ij - dout_i . out_i). Maxima are kept in powers of two.
#include "cuda/stick_breaking.cuh"

namespace mf::cuda {

template <typename T>
class SoftmaxWeights {
  using A = Accumulate<T>;

 public:
  static constexpr bool kDecays = true;

  MF_DEVICE explicit SoftmaxWeights(const RowBlock<T>&) {}
  MF_DEVICE bool enter(int) { return true; }
  MF_DEVICE void apply(A (&scores)[8][4], const uint32_t (&seen)[2], A log2Scale) {
    MF_UNROLL
    for (int half = 0; half < 2; ++half) {
      A top = maximum_[half];
      MF_UNROLL
      for (int j = 0; j < kLaneKeys; ++j) {
        A& logit = keyOf(scores, half, j);
        logit = seen[half] >> j & 1 ? logit * log2Scale : A(-INFINITY);
        top = Max{}(logit, top);
      }
      top = Max{}(shuffleXor(top, 1), top);
      top = Max{}(shuffleXor(top, 2), top);
      A sum = A(0);
      MF_UNROLL
      for (int j = 0; j < kLaneKeys; ++j) {
        A& weight = keyOf(scores, half, j);
        weight = powerOfTwo(weight - top);
        sum += weight;
      }
      decay_[half] = powerOfTwo(maximum_[half] - top);
      maximum_[half] = top;
      sum_[half] = sum_[half] * decay_[half] + sum;
    }
  }
  MF_DEVICE A decay(int half) const { return decay_[half]; }
  MF_DEVICE void finish() {  // so far each lane has the sum over its own keys
    sum_[0] = rowTotal(sum_[0]);
    sum_[1] = rowTotal(sum_[1]);
  }
  MF_DEVICE A finalFactor(int half) const { return sum_[half] == A(0) ? A(0) : A(1) / sum_[half]; }
  MF_DEVICE A remainder(int) const { return A(0); }
  MF_DEVICE A state(int half) const {
    return sum_[half] == A(0) ? A(0) : maximum_[half] * A(0.69314718055994531) + std::log(sum_[half]);
  }
  MF_DEVICE int32_t live(int) const { return 0; }

 private:
  A maximum_[2] = {A(-1e30f), A(-1e30f)}, sum_[2] = {A(0), A(0)}, decay_[2] = {A(1), A(1)};
};

template <typename T>
class SoftmaxGradient {
  using A = Accumulate<T>;

 public:
  static constexpr bool kSticks = false;

  // state: the log-sum-exp; mean: dout . out.
  MF_DEVICE void begin(int half, A state, A mean) {
    logSum_[half] = state * A(1.4426950408889634);
    mean_[half] = mean;
  }
  MF_DEVICE A rowValue(int half) const { return mean_[half]; }

  template <bool kWeights, bool kSlopes, typename F>
  MF_DEVICE void apply(A (&scores)[8][4], A (&slopes)[8][4], const uint32_t (&seen)[2], A log2Scale, F) {
    MF_UNROLL
    for (int half = 0; half < 2; ++half) MF_UNROLL
    for (int j = 0; j < kLaneKeys; ++j) {
      A& weight = keyOf(scores, half, j);
      weight = seen[half] >> j & 1 ? powerOfTwo(weight * log2Scale - logSum_[half]) : A(0);
      if constexpr (kSlopes) keyOf(slopes, half, j) = weight * (keyOf(slopes, half, j) - mean_[half]);
    }
  }

 private:
  A logSum_[2], mean_[2];
};

}  // namespace mf::cuda
