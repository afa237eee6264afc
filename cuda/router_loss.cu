// The routers' losses and load statistics. All sums are f64, over fixed blocks of tokens that are added in
// order.
#include "cuda/cuda_backend.h"
#include "cuda/fault.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

constexpr int64_t kTokens = 256;         // of one block of the forward pass
constexpr double kMarginalFloor = 1e-8;  // inside the logarithm of the mi loss, as in the reference

// log(sum exp logits) from the largest probability, which is at least 1/E.
template <typename A>
MF_DEVICE A logSumExp(const A* logits, const A* probs, int64_t E) {
  int64_t top = 0;
  for (int64_t e = 1; e < E; ++e)
    if (probs[e] > probs[top]) top = e;
  return logits[top] - std::log(probs[top]);
}

// Terms with p = 0 are 0, their limit: a logit of -infinity is legal.
template <typename A>
MF_DEVICE A negativeEntropy(const A* logits, const A* probs, A lse, int64_t E) {
  A sum = A(0);
  for (int64_t e = 0; e < E; ++e) sum += probs[e] == A(0) ? A(0) : probs[e] * (logits[e] - lse);
  return sum;
}

// partial [blocks, 3 + 3 E]: tokens, negative entropy, squared logsumexp, then mass, choices and gate mass
// [E].
template <typename A>
struct SumTokens {
  const A *logits, *probs, *gates;
  const int32_t *experts, *mask;
  double* partial;
  int64_t N, E, K;
  Fault* fault;

  MF_DEVICE bool counts(int64_t n) const { return !mask || mask[n] != 0; }

  MF_DEVICE void operator()(int64_t block) const {
    const int64_t begin = block * kTokens, end = minimum(N, begin + kTokens);
    double* sums = partial + block * (3 + 3 * E);
    double tokens = 0, entropy = 0, squares = 0;
    for (int64_t n = begin + threadId(); n < end; n += blockThreads()) {
      if (!counts(n)) continue;
      const A lse = logSumExp(logits + n * E, probs + n * E, E);
      tokens += 1;
      entropy += static_cast<double>(negativeEntropy(logits + n * E, probs + n * E, lse, E));
      squares += static_cast<double>(lse) * static_cast<double>(lse);
      for (int64_t k = 0; k < K; ++k) {
        const int32_t e = experts[n * K + k];
        if (e < 0 || e >= E) report(fault, FaultKind::Expert, n * K + k, e, E);
      }
    }
    tokens = blockReduce(tokens, Add{});
    entropy = blockReduce(entropy, Add{});
    squares = blockReduce(squares, Add{});
    if (threadId() == 0) {
      sums[0] = tokens;
      sums[1] = entropy;
      sums[2] = squares;
    }
    for (int64_t e = threadId(); e < E; e += blockThreads()) {
      double mass = 0, choices = 0, gateMass = 0;
      for (int64_t n = begin; n < end; ++n) {
        if (!counts(n)) continue;
        mass += static_cast<double>(probs[n * E + e]);
        for (int64_t k = 0; k < K; ++k) {
          if (experts[n * K + k] != e) continue;
          const A gate = gates[n * K + k];
          choices += gate > A(0) ? 1 : 0;
          gateMass += static_cast<double>(gate);
        }
      }
      sums[3 + e] = mass;
      sums[3 + E + e] = choices;
      sums[3 + 2 * E + e] = gateMass;
    }
  }
};

// One block: adds the blocks' sums into those of the first, then the losses.
template <typename A>
struct WriteLosses {
  double* partial;
  A *out, *stats;
  int64_t blocks, E;

  MF_DEVICE void operator()(int64_t) const {
    const int64_t width = 3 + 3 * E;
    forRow(width, [&](int64_t i) {
      double sum = 0;
      for (int64_t block = 0; block < blocks; ++block) sum += partial[block * width + i];
      partial[i] = sum;
      if (i >= 3) stats[i - 3] = static_cast<A>(sum);
    });
    syncThreads();
    const double *mass = partial + 3, *choices = mass + E;
    const double tokens = maximum(partial[0], 1.0);
    const double massNorm = maximum(rowSum<double>(E, [&](int64_t e) { return std::abs(mass[e]); }), 1e-12);
    const double choiceNorm = maximum(rowSum<double>(E, [&](int64_t e) { return choices[e]; }), 1e-12);
    const bool any = partial[0] > 0;
    const double floored = rowSum<double>(E, [&](int64_t e) {
      const double p = mass[e] / tokens;
      return any ? p * std::log(p + kMarginalFloor) : 0.0;
    });
    const double marginal = rowSum<double>(E, [&](int64_t e) {
      const double p = mass[e] / tokens;
      return !any || p == 0 ? 0.0 : p * std::log(p);
    });
    const double balance = rowSum<double>(
        E, [&](int64_t e) { return any ? (mass[e] / massNorm) * (choices[e] / choiceNorm) : 0.0; });
    if (threadId() != 0) return;
    out[0] = static_cast<A>(floored - partial[1] / tokens);
    out[1] = static_cast<A>(static_cast<double>(E) * balance);
    out[2] = static_cast<A>(partial[2] / tokens);
    out[3] = static_cast<A>(-marginal);
  }
};

// One block. common: what mi, switch and concentration send to every token's probability of expert e, up to a
// term that is the same for all e, which the softmax takes out; then the factors of mi and z.
template <typename A>
struct MarginalGradient {
  const A *stats, *dout;
  const int32_t* mask;
  A* marginal;  // [E + 2]
  int64_t N, E;

  MF_DEVICE void operator()(int64_t) const {
    const int counted = mask ? rowSum<int>(N, [&](int64_t n) { return static_cast<int>(mask[n] != 0); })
                             : static_cast<int>(N);
    const double tokens = counted < 1 ? 1.0 : static_cast<double>(counted);
    const A *mass = stats, *choices = stats + E;
    const double massNorm =
        maximum(rowSum<double>(E, [&](int64_t e) { return static_cast<double>(mass[e]); }), 1e-12);
    const double choiceNorm =
        maximum(rowSum<double>(E, [&](int64_t e) { return static_cast<double>(choices[e]); }), 1e-12);
    forRow(E, [&](int64_t e) {
      const double p = static_cast<double>(mass[e]) / tokens;
      const double mi = std::log(p + kMarginalFloor) + p / (p + kMarginalFloor);
      const double balance = static_cast<double>(E) * static_cast<double>(choices[e]) / choiceNorm / massNorm;
      const double concentration = p == 0 ? 0 : -std::log(p);
      marginal[e] = static_cast<A>(
          (static_cast<double>(dout[0]) * mi + static_cast<double>(dout[3]) * concentration) / tokens +
          static_cast<double>(dout[1]) * balance);
    });
    if (threadId() != 0) return;
    marginal[E] = static_cast<A>(static_cast<double>(dout[0]) / tokens);
    marginal[E + 1] = static_cast<A>(static_cast<double>(dout[2]) / tokens);
  }
};

template <typename A>
struct LogitsGradient {
  const A *logits, *probs, *marginal;
  const int32_t* mask;
  A* dlogits;
  int64_t E;

  MF_DEVICE void operator()(int64_t n) const {
    const A *l = logits + n * E, *p = probs + n * E;
    A* d = dlogits + n * E;
    if (mask && mask[n] == 0) return forRow(E, [&](int64_t e) { d[e] = A(0); });
    const A mi = marginal[E], z = marginal[E + 1], lse = logSumExp(l, p, E);
    const A entropy = rowSum<A>(E, [&](int64_t e) { return p[e] == A(0) ? A(0) : p[e] * (l[e] - lse); });
    const A mean = rowSum<A>(E, [&](int64_t e) { return p[e] * marginal[e]; });
    const A common = A(2) * z * lse + mi * entropy - mean;
    forRow(E, [&](int64_t e) {
      d[e] = p[e] == A(0) ? A(0) : p[e] * (marginal[e] + common - mi * (l[e] - lse));
    });
  }
};

}  // namespace

void CudaBackend::routerLoss(const RouterLossArgs& args) {
  const int64_t N = args.probs.size(0), E = args.probs.size(1),
                blocks = maximum(int64_t{1}, ceilDiv(N, kTokens));
  double* partial = scratchOf<double>(blocks * (3 + 3 * E));
  dispatchAccumulate(args.probs.dtype, [&]<typename A>() {
    forRows(
        stream_, blocks, kTokens,
        SumTokens<A>{args.logits.as<A>(), args.probs.as<A>(), args.gates.as<A>(), args.experts.as<int32_t>(),
                     args.mask.as<int32_t>(), partial, N, E, args.experts.size(1), fault_});
    forRows(stream_, 1, E, WriteLosses<A>{partial, args.out.as<A>(), args.stats.as<A>(), blocks, E});
  });
  raiseFault();
}

void CudaBackend::routerLossBackward(const RouterLossBackwardArgs& args) {
  const int64_t N = args.probs.size(0), E = args.probs.size(1);
  dispatchAccumulate(args.probs.dtype, [&]<typename A>() {
    A* marginal = scratchOf<A>(E + 2);
    const int32_t* mask = args.mask.as<int32_t>();
    forRows(stream_, 1, maximum(N, E),
            MarginalGradient<A>{args.stats.as<A>(), args.dout.as<A>(), mask, marginal, N, E});
    forRows(
        stream_, N, E,
        LogitsGradient<A>{args.logits.as<A>(), args.probs.as<A>(), marginal, mask, args.dlogits.as<A>(), E});
  });
}

}  // namespace mf::cuda
