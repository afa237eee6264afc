#include "cuda/cross_entropy.cuh"

#include "cuda/cuda_backend.h"

namespace mf::cuda {
namespace {

template <typename A, typename I>
struct RowLogSumExp {
  const A* logits;
  const I* labels;
  A* lse;
  int64_t V;
  MF_DEVICE void operator()(int64_t n) const {
    if (labels[n] == kIgnoredLabel) {
      if (threadId() == 0) lse[n] = A(0);
      return;
    }
    const A value = logSumExp(logits + n * V, V);
    if (threadId() == 0) lse[n] = value;
  }
};

// One block: the mean of the losses over the counted labels.
template <typename A, typename I>
struct MeanLoss {
  const A *logits, *lse, *count;
  const I* labels;
  A* loss;
  int64_t N, V;
  MF_DEVICE void operator()(int64_t) const {
    const double total = rowSum<double>(N, [&](int64_t n) {
      if (labels[n] == kIgnoredLabel) return 0.0;
      if (!isClass(labels[n], V)) return static_cast<double>(NAN);
      return static_cast<double>(lse[n]) -
             static_cast<double>(logits[n * V + static_cast<int64_t>(labels[n])]);
    });
    if (threadId() == 0) *loss = *count == A(0) ? A(0) : static_cast<A>(total / static_cast<double>(*count));
  }
};

template <typename A, typename I>
struct CrossEntropyBackward {
  const A *logits, *lse, *dloss, *count;
  const I* labels;
  A* dlogits;
  int64_t V;
  MF_DEVICE void operator()(int64_t n) const {
    if (labels[n] == kIgnoredLabel) return forRow(V, [&](int64_t i) { dlogits[n * V + i] = A(0); });
    logitsGrad(logits + n * V, V, lse[n], static_cast<int64_t>(labels[n]), *dloss / *count, dlogits + n * V);
  }
};

// Calls f with the types of the logits (acc) and of the labels.
template <typename F>
void dispatch(const View& logits, const View& labels, F&& f) {
  dispatchAccumulate(logits.dtype, [&]<typename A>() {
    dispatchInteger(labels.dtype, [&]<typename I>() { f.template operator()<A, I>(); });
  });
}

}  // namespace

void CudaBackend::crossEntropy(const CrossEntropyArgs& args) {
  const int64_t N = args.logits.size(0), V = args.logits.size(1);
  dispatch(args.logits, args.labels, [&]<typename A, typename I>() {
    const A* logits = args.logits.as<A>();
    const I* labels = args.labels.as<I>();
    A *lse = args.lse.as<A>(), *count = args.count.as<A>();
    forRows(stream_, 1, N, CountLabels<A, I>{labels, N, V, count, fault_});
    forRows(stream_, N, V, RowLogSumExp<A, I>{logits, labels, lse, V});
    forRows(stream_, 1, N, MeanLoss<A, I>{logits, lse, count, labels, args.loss.as<A>(), N, V});
  });
  raiseFault();
}

void CudaBackend::crossEntropyBackward(const CrossEntropyBackwardArgs& args) {
  const int64_t N = args.logits.size(0), V = args.logits.size(1);
  dispatch(args.logits, args.labels, [&]<typename A, typename I>() {
    forRows(stream_, N, V,
            CrossEntropyBackward<A, I>{args.logits.as<A>(), args.lse.as<A>(), args.dloss.as<A>(),
                                       args.count.as<A>(), args.labels.as<I>(), args.dlogits.as<A>(), V});
  });
}

}  // namespace mf::cuda
