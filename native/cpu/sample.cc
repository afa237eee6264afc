// Choosing the next token, with Hugging Face's processors in their order: repetition penalty, temperature,
// top-k, top-p, then one draw.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/philox.h"
#include "core/pool.h"
#include "cpu/simd.h"

namespace MF_CPU_NAMESPACE {
namespace {

inline float exponential(float x) {
  return expApprox(x);
}
inline double exponential(double x) {
  return std::exp(x);
}

// A token that may still be drawn: `value` is its score, then its weight.
template <typename T>
struct Candidate {
  T value;
  int32_t token;
};

// scores = logits, those of the history's tokens penalised once each.
template <typename T>
void penalise(const SampleArgs& a, int64_t row, const T* logits, T* scores, int64_t V) {
  std::copy(logits, logits + V, scores);
  const T penalty = static_cast<T>(a.repetitionPenalty);
  if (!a.history || penalty == T(1)) return;
  const int64_t S = a.history.size(1);
  for (int64_t s = 0; s < S; ++s) {
    const int32_t token = a.history.as<int32_t>()[row * S + s];
    if (token == -1) continue;
    if (token < 0 || token >= V)
      throw Error(ErrorKind::Value, "history holds " + std::to_string(token) +
                                        ", expected -1 (padding) or 0 to " + std::to_string(V - 1));
    // From the logit, not the score, so that a token seen twice is penalised once.
    scores[token] = logits[token] < 0 ? logits[token] * penalty : logits[token] / penalty;
  }
}

// The first maximum; NaN and a row of -infinity are errors.
template <typename T>
int32_t firstMaximum(const T* scores, int64_t V, int64_t row) {
  constexpr int64_t kWidth = 64;  // lanes of maxima: one would be a chain of comparisons
  const T none = -std::numeric_limits<T>::infinity();
  T most[kWidth];
  std::fill_n(most, kWidth, none);
  int64_t numbers = 0, v = 0;
  for (; v + kWidth <= V; v += kWidth)
    for (int64_t i = 0; i < kWidth; ++i) most[i] = scores[v + i] > most[i] ? scores[v + i] : most[i];
  for (; v < V; ++v) most[0] = scores[v] > most[0] ? scores[v] : most[0];
  for (v = 0; v < V; ++v) numbers += scores[v] == scores[v];
  if (numbers != V) throw Error(ErrorKind::Value, "logits of row " + std::to_string(row) + " hold NaN");
  const T top = *std::max_element(most, most + kWidth);
  if (top == none)
    throw Error(ErrorKind::Value,
                "logits of row " + std::to_string(row) + " are all -infinity, no token is possible");
  return static_cast<int32_t>(std::find(scores, scores + V, top) - scores);
}

template <typename T>
double totalWeight(const Candidate<T>* kept, int64_t count) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += static_cast<double>(kept[i].value);
  return total;
}

// Keeps what is not below the topK-th score; ties with it stay.
template <typename T>
int64_t keepTopK(Candidate<T>* kept, int64_t count, int64_t topK) {
  if (topK == 0 || topK >= count) return count;
  const auto larger = [](const Candidate<T>& x, const Candidate<T>& y) {
    return x.value > y.value || (x.value == y.value && x.token < y.token);
  };
  std::nth_element(kept, kept + topK - 1, kept + count, larger);
  const T threshold = kept[topK - 1].value;
  return std::partition(kept, kept + count, [=](const Candidate<T>& c) { return c.value >= threshold; }) -
         kept;
}

// Keeps the most probable tokens until their sum reaches topP, at least one; lower ids first on ties. Most of
// a row is never sorted: chunks of the most probable are, each larger than the one before.
template <typename T>
int64_t keepTopP(Candidate<T>* kept, int64_t count, double topP) {
  if (topP >= 1) return count;
  const auto larger = [](const Candidate<T>& x, const Candidate<T>& y) {
    return x.value > y.value || (x.value == y.value && x.token < y.token);
  };
  const double limit = topP * totalWeight(kept, count);
  double sum = 0;
  int64_t keep = 0;
  for (int64_t chunk = 256; keep < count; chunk *= 4) {
    const int64_t end = std::min(count, keep + chunk);
    if (end < count) std::nth_element(kept + keep, kept + end, kept + count, larger);
    std::sort(kept + keep, kept + end, larger);
    for (; keep < end; ++keep) {
      if (keep > 0 && sum >= limit) return keep;
      sum += static_cast<double>(kept[keep].value);
    }
  }
  return keep;
}

template <typename T>
int32_t draw(Candidate<T>* kept, int64_t count, double u) {
  const auto earlier = [](const Candidate<T>& x, const Candidate<T>& y) { return x.token < y.token; };
  if (!std::is_sorted(kept, kept + count, earlier)) std::sort(kept, kept + count, earlier);
  const double target = u * totalWeight(kept, count);
  double sum = 0;
  int64_t drawn = 0;  // the last token with a weight, should rounding leave the sum below the target
  for (int64_t i = 0; i < count; ++i) {
    if (!(kept[i].value > 0)) continue;
    sum += static_cast<double>(kept[i].value);
    drawn = i;
    if (sum > target) break;
  }
  return kept[drawn].token;
}

template <typename T>
int32_t sampleRow(const SampleArgs& a, int64_t row) {
  const int64_t V = a.logits.size(1);
  T* scores = static_cast<T*>(threadScratch(static_cast<size_t>(V) * (sizeof(T) + sizeof(Candidate<T>))));
  penalise(a, row, a.logits.as<T>() + row * V, scores, V);
  const int32_t best = firstMaximum(scores, V, row);
  if (a.temperature == 0) return best;

  const T top = scores[best], inverse = static_cast<T>(1 / a.temperature);
  if (top == std::numeric_limits<T>::infinity()) return best;
  auto* kept = reinterpret_cast<Candidate<T>*>(scores + V);
  for (int64_t v = 0; v < V; ++v) kept[v] = {scores[v], static_cast<int32_t>(v)};
  int64_t count = keepTopK(kept, V, a.topK);
  for (int64_t i = 0; i < count; ++i) kept[i].value = exponential((kept[i].value - top) * inverse);
  count = keepTopP(kept, count, a.topP);
  const uint64_t step = a.step ? static_cast<uint64_t>(*a.step.as<int32_t>()) : 0;
  const PhiloxBlock block = philox({a.key.seed, a.key.stream + step}, static_cast<uint64_t>(row));
  return draw(kept, count, uniform01(block.word[0], block.word[1]));
}

}  // namespace

void CpuBackend::sample(const SampleArgs& a) {
  Pool::instance().parallelFor(a.logits.size(0), [&](int64_t row) {
    a.out.as<int32_t>()[row] =
        a.logits.dtype == DType::f64 ? sampleRow<double>(a, row) : sampleRow<float>(a, row);
  });
}

}  // namespace MF_CPU_NAMESPACE
