#pragma once
// What the cross-entropy ops share: the labels, and one row of logits.
#include "cuda/fault.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {

constexpr int64_t kIgnoredLabel = -100;

// One block: count = the number of labels that count; a label that is neither a class nor ignored is a fault.
template <typename A, typename I>
struct CountLabels {
  const I* labels;
  int64_t N, V;
  A* count;
  Fault* fault;
  MF_DEVICE void operator()(int64_t) const {
    int own = 0;
    for (int64_t n = threadId(); n < N; n += blockThreads()) {
      const int64_t label = labels[n];
      if (label == kIgnoredLabel) continue;
      ++own;
      if (label < 0 || label >= V) report(fault, FaultKind::Label, n, label, V);
    }
    const int total = blockReduce(own, Add{});
    if (threadId() == 0) *count = static_cast<A>(total);
  }
};

template <typename A>
MF_DEVICE A logSumExp(const A* logits, int64_t V) {
  const A max = rowMax<A>(V, [&](int64_t i) { return logits[i]; });
  return max + std::log(rowSum<A>(V, [&](int64_t i) { return std::exp(logits[i] - max); }));
}

// (softmax - onehot) * scale; dlogits may be the logits themselves.
template <typename A, typename T>
MF_DEVICE void logitsGrad(const A* logits, int64_t V, A lse, int64_t label, A scale, T* dlogits) {
  forRow(V, [&](int64_t i) {
    const A p = std::exp(logits[i] - lse);
    dlogits[i] = static_cast<T>((i == label ? p - A(1) : p) * scale);
  });
}

// A label that may index a row: a fault has been reported for any other.
template <typename I>
MF_DEVICE bool isClass(I label, int64_t V) {
  return label >= 0 && label < V;
}

}  // namespace mf::cuda
