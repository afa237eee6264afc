#include "cpu/cross_entropy.h"

#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"

namespace MF_CPU_NAMESPACE {
namespace {

template <typename A, typename I>
void crossEntropyKernel(const CrossEntropyArgs& args) {
  const int64_t N = args.logits.size(0), V = args.logits.size(1);
  const A* logits = args.logits.as<A>();
  const I* labels = args.labels.as<I>();
  A* lse = args.lse.as<A>();
  const int64_t count = countLabels(labels, N, V);
  forRows(N, V, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n)
      lse[n] = labels[n] == kIgnoredLabel ? A(0) : logSumExp(logits + n * V, V);
  });
  double total = 0;
  for (int64_t n = 0; n < N; ++n)
    if (labels[n] != kIgnoredLabel)
      total += static_cast<double>(lse[n]) - static_cast<double>(logits[n * V + labels[n]]);
  *args.loss.as<A>() = count == 0 ? A(0) : static_cast<A>(total / static_cast<double>(count));
  *args.count.as<A>() = static_cast<A>(count);
}

template <typename A, typename I>
void crossEntropyBackwardKernel(const CrossEntropyBackwardArgs& args) {
  const int64_t N = args.logits.size(0), V = args.logits.size(1);
  const A *logits = args.logits.as<A>(), *lse = args.lse.as<A>();
  const I* labels = args.labels.as<I>();
  A* dlogits = args.dlogits.as<A>();
  const A scale = *args.dloss.as<A>() / *args.count.as<A>();  // not used when no label counts
  forRows(N, V, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      A* row = dlogits + n * V;
      if (labels[n] == kIgnoredLabel)
        for (int64_t i = 0; i < V; ++i) row[i] = A(0);
      else
        logitsGrad(logits + n * V, V, lse[n], labels[n], scale, row);
    }
  });
}

// Calls f with the types of the logits (acc) and of the labels.
template <typename F>
void dispatch(const View& logits, const View& labels, F&& f) {
  dispatchLabels(labels.dtype, [&]<typename I>() {
    if (logits.dtype == DType::f64) return f.template operator()<double, I>();
    f.template operator()<float, I>();
  });
}

}  // namespace

void CpuBackend::crossEntropy(const CrossEntropyArgs& args) {
  dispatch(args.logits, args.labels, [&]<typename A, typename I>() { crossEntropyKernel<A, I>(args); });
}

void CpuBackend::crossEntropyBackward(const CrossEntropyBackwardArgs& args) {
  dispatch(args.logits, args.labels,
           [&]<typename A, typename I>() { crossEntropyBackwardKernel<A, I>(args); });
}

}  // namespace MF_CPU_NAMESPACE
