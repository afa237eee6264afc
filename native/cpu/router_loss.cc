// The routers' losses and load statistics in one pass over [N, E]. All sums are f64, over fixed blocks of
// tokens that are added in order.
#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "core/pool.h"
#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {
namespace {

constexpr int64_t kTaskElements = 16384;
constexpr double kMarginalFloor = 1e-8;  // inside the logarithm of the mi loss, as in the reference

// Sums over a block of tokens, followed in memory by three rows [E]: probability mass, choices, gate mass.
struct Sums {
  double tokens, negativeEntropy, squaredLse;
  double* rows() { return reinterpret_cast<double*>(this + 1); }
};

// log(sum exp logits) from the largest probability, which is at least 1/E: one logarithm a row.
template <typename T>
T logSumExp(const T* logits, const T* probs, int64_t E) {
  int64_t top = 0;
  for (int64_t e = 1; e < E; ++e)
    if (probs[e] > probs[top]) top = e;
  return logits[top] - std::log(probs[top]);
}

// Terms with p = 0 are 0, their limit: a logit of -infinity is legal.
template <typename T>
T negativeEntropy(const T* logits, const T* probs, T lse, int64_t E) {
  T sum = 0;
  for (int64_t e = 0; e < E; ++e) sum += probs[e] == 0 ? T(0) : probs[e] * (logits[e] - lse);
  return sum;
}

template <typename T>
void sumBlock(const RouterLossArgs& a, int64_t begin, int64_t end, Sums* sums) {
  const int64_t E = a.probs.size(1), K = a.experts.size(1);
  double *mass = sums->rows(), *choices = mass + E, *gateMass = choices + E;
  sums->tokens = sums->negativeEntropy = sums->squaredLse = 0;
  std::fill(mass, mass + 3 * E, 0.0);
  for (int64_t n = begin; n < end; ++n) {
    if (a.mask && a.mask.as<int32_t>()[n] == 0) continue;
    const T *logits = a.logits.as<T>() + n * E, *probs = a.probs.as<T>() + n * E;
    const T lse = logSumExp(logits, probs, E);
    sums->tokens += 1;
    sums->squaredLse += static_cast<double>(lse) * lse;
    sums->negativeEntropy += negativeEntropy(logits, probs, lse, E);
    for (int64_t e = 0; e < E; ++e) mass[e] += probs[e];
    for (int64_t k = 0; k < K; ++k) {
      const int32_t e = a.experts.as<int32_t>()[n * K + k];
      if (e < 0 || e >= E)
        throw Error(ErrorKind::Value,
                    "experts holds " + std::to_string(e) + ", expected 0 to " + std::to_string(E - 1));
      const T gate = a.gates.as<T>()[n * K + k];
      choices[e] += gate > 0 ? 1 : 0;
      gateMass[e] += gate;
    }
  }
}

double l1Norm(const double* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::abs(x[i]);
  return std::max(sum, 1e-12);
}

template <typename T>
void writeLosses(const RouterLossArgs& a, Sums& sums) {
  const int64_t E = a.probs.size(1);
  const double *mass = sums.rows(), *choices = mass + E;
  for (int64_t i = 0; i < 3 * E; ++i) a.stats.as<T>()[i] = static_cast<T>(mass[i]);

  const double tokens = std::max(sums.tokens, 1.0);
  const double massNorm = l1Norm(mass, E), choiceNorm = l1Norm(choices, E);
  double floored = 0, marginal = 0, balance = 0;
  for (int64_t e = 0; e < E && sums.tokens > 0; ++e) {
    const double p = mass[e] / tokens;
    floored += p * std::log(p + kMarginalFloor);
    marginal += p == 0 ? 0 : p * std::log(p);
    balance += (mass[e] / massNorm) * (choices[e] / choiceNorm);
  }
  T* out = a.out.as<T>();
  out[0] = static_cast<T>(floored - sums.negativeEntropy / tokens);
  out[1] = static_cast<T>(static_cast<double>(E) * balance);
  out[2] = static_cast<T>(sums.squaredLse / tokens);
  out[3] = static_cast<T>(-marginal);
}

template <typename T>
void forward(const RouterLossArgs& a) {
  const int64_t N = a.probs.size(0), E = a.probs.size(1);
  const int64_t rows = std::max<int64_t>(1, kTaskElements / E),
                blocks = std::max<int64_t>(1, (N + rows - 1) / rows);
  const size_t bytes = sizeof(Sums) + static_cast<size_t>(3 * E) * sizeof(double);
  char* scratch = static_cast<char*>(threadScratch(static_cast<size_t>(blocks) * bytes));
  const auto sumsOf = [=](int64_t block) {
    return reinterpret_cast<Sums*>(scratch + static_cast<size_t>(block) * bytes);
  };
  Pool::instance().parallelFor(blocks, [&](int64_t block) {
    sumBlock<T>(a, block * rows, std::min(N, (block + 1) * rows), sumsOf(block));
  });
  Sums& total = *sumsOf(0);
  for (int64_t block = 1; block < blocks; ++block) {
    Sums& sums = *sumsOf(block);
    total.tokens += sums.tokens;
    total.negativeEntropy += sums.negativeEntropy;
    total.squaredLse += sums.squaredLse;
    for (int64_t i = 0; i < 3 * E; ++i) total.rows()[i] += sums.rows()[i];
  }
  writeLosses<T>(a, total);
}

int64_t countTokens(const RouterLossBackwardArgs& a) {
  const int64_t N = a.probs.size(0);
  if (!a.mask) return N;
  int64_t tokens = 0;
  for (int64_t n = 0; n < N; ++n) tokens += a.mask.as<int32_t>()[n] != 0;
  return tokens;
}

// What mi, switch and concentration send to every token's probability of expert e, up to a term that is the
// same for all e: the softmax takes such a term out.
template <typename T>
void marginalGradient(const RouterLossBackwardArgs& a, double tokens, T* gradient) {
  const int64_t E = a.probs.size(1);
  const T *mass = a.stats.as<T>(), *choices = mass + E, *dout = a.dout.as<T>();
  double massNorm = 0, choiceNorm = 0;
  for (int64_t e = 0; e < E; ++e) {
    massNorm += mass[e];
    choiceNorm += choices[e];
  }
  massNorm = std::max(massNorm, 1e-12);
  choiceNorm = std::max(choiceNorm, 1e-12);
  for (int64_t e = 0; e < E; ++e) {
    const double p = mass[e] / tokens;
    const double mi = std::log(p + kMarginalFloor) + p / (p + kMarginalFloor);
    const double balance = static_cast<double>(E) * choices[e] / choiceNorm / massNorm;
    const double concentration = p == 0 ? 0 : -std::log(p);
    gradient[e] = static_cast<T>((dout[0] * mi + dout[3] * concentration) / tokens + dout[1] * balance);
  }
}

template <typename T>
void backward(const RouterLossBackwardArgs& a) {
  const int64_t N = a.probs.size(0), E = a.probs.size(1);
  const double tokens = static_cast<double>(std::max<int64_t>(1, countTokens(a)));
  T* marginal = static_cast<T*>(threadScratch(static_cast<size_t>(E) * sizeof(T)));
  marginalGradient<T>(a, tokens, marginal);
  const T mi = static_cast<T>(a.dout.as<T>()[0] / tokens), z = static_cast<T>(a.dout.as<T>()[2] / tokens);

  const int64_t rows = std::max<int64_t>(1, kTaskElements / E);
  Pool::instance().parallelFor((N + rows - 1) / rows, [&](int64_t task) {
    for (int64_t n = task * rows; n < std::min(N, (task + 1) * rows); ++n) {
      T* dlogits = a.dlogits.as<T>() + n * E;
      if (a.mask && a.mask.as<int32_t>()[n] == 0) {
        std::fill(dlogits, dlogits + E, T(0));
        continue;
      }
      const T *logits = a.logits.as<T>() + n * E, *probs = a.probs.as<T>() + n * E;
      const T lse = logSumExp(logits, probs, E);
      const T entropy = negativeEntropy(logits, probs, lse, E);
      T mean = 0;
      for (int64_t e = 0; e < E; ++e) mean += probs[e] * marginal[e];
      const T common = 2 * z * lse + mi * entropy - mean;
      for (int64_t e = 0; e < E; ++e)
        dlogits[e] = probs[e] == 0 ? T(0) : probs[e] * (marginal[e] + common - mi * (logits[e] - lse));
    }
  });
}

}  // namespace

void CpuBackend::routerLoss(const RouterLossArgs& a) {
  if (a.probs.dtype == DType::f64)
    forward<double>(a);
  else
    forward<float>(a);
}

void CpuBackend::routerLossBackward(const RouterLossBackwardArgs& a) {
  if (a.probs.dtype == DType::f64)
    backward<double>(a);
  else
    backward<float>(a);
}

}  // namespace MF_CPU_NAMESPACE
