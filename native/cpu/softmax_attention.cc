// Softmax attention with the online maximum: weights of a tile are 2^(l - m) for the running maximum m of the
// row, and what was summed before is scaled when m grows. Backward recomputes them from the log-sum-exp.
#include "cpu/attention_backward.h"
#include "cpu/attention_forward.h"
#include "cpu/stick_breaking.h"

namespace MF_CPU_NAMESPACE {
namespace {

constexpr float kNoLogit = -1e30f;

template <typename T, int64_t W>
class SoftmaxWeights {
  using A = Accumulate<T>;
  using V = Vec<A>;
  static constexpr int64_t L = kLanesOf<A>;

 public:
  explicit SoftmaxWeights(const RowBlock<A, W>&) {
    for (int64_t r = 0; r < W; ++r) {
      maximum_[r] = kNoLogit;
      sum_[r] = 0;
    }
  }

  bool enter(int64_t) { return true; }

  template <bool kMasked>
  bool apply(const RowBlock<A, W>& rows, int64_t firstKey, int64_t keys, A* tile, A* decays) {
    for (int64_t r = 0; r < W; r += L) {
      const V before = load<V>(maximum_ + r);
      V top = before;
      for (int64_t j = 0; j < keys; ++j) {
        V logit = load<V>(tile + j * W + r);
        if constexpr (kMasked) {
          logit = rows.sees(rows.visiblePosition(firstKey + j), r) ? logit : V{} + kNoLogit;
          store(tile + j * W + r, logit);
        }
        top = maximum(top, logit);
      }
      V sum = V{};
      for (int64_t j = 0; j < keys; ++j) {
        const V logit = load<V>(tile + j * W + r);
        V weight = exp2Saturating(logit - top);
        if constexpr (kMasked) weight = logit <= V{} + kNoLogit ? V{} : weight;
        store(tile + j * W + r, weight);
        sum += weight;
      }
      const V decay = exp2Saturating(before - top);
      store(maximum_ + r, top);
      store(sum_ + r, load<V>(sum_ + r) * decay + sum);
      store(decays + r, decay);
    }
    bool scaled = false;
    for (int64_t r = 0; r < W; ++r) scaled |= decays[r] != 1;
    return scaled;
  }

  void finish(const AttentionInput<T>&, const RowBlock<A, W>&, A* factor, A*, int64_t, int64_t) const {
    for (int64_t r = 0; r < W; ++r) factor[r] = sum_[r] == 0 ? A(0) : 1 / sum_[r];
  }

  void save(const AttentionArgs& args, const RowBlock<A, W>& rows, int64_t index, int64_t step) const {
    for (int64_t r = 0; r < rows.count; ++r)
      args.rowState.as<A>()[index + r * step] =
          sum_[r] == 0 ? A(0) : maximum_[r] * A(kLn2) + std::log(sum_[r]);
  }

 private:
  alignas(64) A maximum_[W], sum_[W];
};

template <typename T, int64_t W>
class SoftmaxGradient {
  using A = Accumulate<T>;
  using V = Vec<A>;
  static constexpr int64_t L = kLanesOf<A>;

 public:
  SoftmaxGradient(const AttentionInput<T>& in, const AttentionBackwardArgs& args,
                  const RowBlock<A, W>& rows) {
    for (int64_t r = 0; r < W; ++r) {
      logSum_[r] = mean_[r] = 0;
      if (r >= rows.count) continue;
      const int64_t offset = in.rowOffset(rows.b, rows.h, rows.first + r);
      logSum_[r] = args.rowState.as<A>()[offset / in.shape.C] * A(kLog2E);
      const T *out = args.out.as<T>() + offset, *dout = args.dout.as<T>() + offset;
      A sum = 0;
      for (int64_t c = 0; c < in.shape.C; ++c) sum += A(out[c]) * A(dout[c]);
      mean_[r] = sum;
    }
  }

  int64_t firstTile(const RowBlock<A, W>& rows) const { return rows.firstTile(); }

  template <bool kMasked>
  void apply(const RowBlock<A, W>& rows, int64_t tile, int64_t keys, A* weights, A* dlogits, A*) {
    for (int64_t j = 0; j < keys; ++j) {
      const V position = kMasked ? rows.visiblePosition(tile * kKeyTile + j) : V{};
#pragma GCC unroll 4
      for (int64_t r = 0; r < W; r += L) {
        V weight = exp2Saturating(load<V>(weights + j * W + r) - load<V>(logSum_ + r));
        if constexpr (kMasked) weight = rows.sees(position, r) ? weight : V{};
        store(weights + j * W + r, weight);
        store(dlogits + j * W + r, weight * (load<V>(dlogits + j * W + r) - load<V>(mean_ + r)));
      }
    }
  }

  void finish(const AttentionInput<T>&, const RowBlock<A, W>&, const T*, A*) const {}

 private:
  alignas(64) A logSum_[W];  // in units of log 2
  alignas(64) A mean_[W];    // sum_j a_ij dout_i . v_j = dout_i . out_i
};

}  // namespace

void softmaxAttention(const AttentionArgs& args) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    if (rowsPerBlock(args.shape) == kNarrowRows)
      forwardRows<T, kNarrowRows, SoftmaxWeights<T, kNarrowRows>>(args);
    else
      forwardRows<T, kWideRows, SoftmaxWeights<T, kWideRows>>(args);
  });
}

void softmaxAttentionBackward(const AttentionBackwardArgs& args) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    if (rowsPerBlock(args.shape) == kNarrowRows)
      backwardRows<T, kNarrowRows, SoftmaxGradient<T, kNarrowRows>>(args);
    else
      backwardRows<T, kWideRows, SoftmaxGradient<T, kWideRows>>(args);
  });
}

}  // namespace MF_CPU_NAMESPACE
