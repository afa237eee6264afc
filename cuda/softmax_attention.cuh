#pragma once
// Softmax weights with the online maximum: those of a tile are exp(l - m) for the running maximum m of the
// row, and what was summed before is scaled when m grows. Backward recomputes them from the log-sum-exp, with
// dl_ij = a_ij (dA_ij - dout_i . out_i). The methods are called by the thread that owns the row.
#include "cuda/attention.cuh"

namespace mf::cuda {

template <typename T>
class SoftmaxWeights {
  using A = Accumulate<T>;

 public:
  static constexpr bool kDecays = true;

  MF_DEVICE explicit SoftmaxWeights(const RowBlock<T>&) {}
  MF_DEVICE bool enter(int64_t) { return true; }
  MF_DEVICE void apply(const RowBlock<T>& rows, int64_t firstKey, A* row) {
    A top = maximum_;
    for (int j = 0; j < kTile; ++j)
      if (rows.sees(firstKey + j)) top = row[j] > top || row[j] != row[j] ? row[j] : top;
    A sum = A(0);
    for (int j = 0; j < kTile; ++j) {
      const A weight = rows.sees(firstKey + j) ? std::exp(row[j] - top) : A(0);
      row[j] = weight;
      sum += weight;
    }
    decay_ = std::exp(maximum_ - top);
    maximum_ = top;
    sum_ = sum_ * decay_ + sum;
  }
  MF_DEVICE A decay() const { return decay_; }
  MF_DEVICE A finalFactor() const { return sum_ == A(0) ? A(0) : A(1) / sum_; }
  MF_DEVICE A remainder() const { return A(0); }
  MF_DEVICE A state() const { return sum_ == A(0) ? A(0) : maximum_ + std::log(sum_); }
  MF_DEVICE int32_t live() const { return 0; }

 private:
  A maximum_ = A(-1e30f), sum_ = A(0), decay_ = A(1);
};

}  // namespace mf::cuda
