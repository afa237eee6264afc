#pragma once
// What the cross-entropy ops share: the labels, and one row of logits.
#include <string>

#include "core/error.h"
#include "cpu/lanes.h"
#include "cpu/unary.h"

namespace MF_CPU_NAMESPACE {

constexpr int64_t kIgnoredLabel = -100;

template <typename F>
inline void dispatchLabels(DType dtype, F&& f) {
  if (dtype == DType::i64) return f.template operator()<int64_t>();
  f.template operator()<int32_t>();
}

// The number of labels that count; throws for one that is neither a class nor ignored.
template <typename I>
inline int64_t countLabels(const I* labels, int64_t N, int64_t V) {
  int64_t count = 0;
  for (int64_t n = 0; n < N; ++n) {
    if (labels[n] == kIgnoredLabel) continue;
    if (labels[n] < 0 || labels[n] >= V)
      throw Error(ErrorKind::Value, "label " + std::to_string(labels[n]) + " at position " +
                                        std::to_string(n) + ", expected 0 to " + std::to_string(V - 1) +
                                        ", or -100 to ignore it");
    ++count;
  }
  return count;
}

template <typename A>
inline A logSumExp(const A* logits, int64_t V) {
  const A max = laneMax<A>(V, [&](int64_t i) { return logits[i]; });
  const A sum = laneSum<A>(V, [&](int64_t i) { return expOf(logits[i] - max); });
  return max + static_cast<A>(std::log(sum));
}

// (softmax - onehot) * scale; dlogits may be the logits themselves.
template <typename A, typename T>
inline void logitsGrad(const A* logits, int64_t V, A lse, int64_t label, A scale, T* dlogits) {
  const A chosen = (expOf(logits[label] - lse) - A(1)) * scale;
  for (int64_t i = 0; i < V; ++i) dlogits[i] = static_cast<T>(expOf(logits[i] - lse) * scale);
  dlogits[label] = static_cast<T>(chosen);
}

}  // namespace MF_CPU_NAMESPACE
