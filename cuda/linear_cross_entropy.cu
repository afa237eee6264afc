// The LM head fused with the loss, in chunks of rows: logits of a chunk, its losses and dlogits, its share of
// the gradients. Whether and how many labels count is known on the device only.
#include "cuda/cross_entropy.cuh"
#include "cuda/cuda_backend.h"
#include "cuda/gemm.cuh"

namespace mf::cuda {
namespace {

template <typename T, typename I>
struct RowLoss {
  using A = Accumulate<T>;
  const A *logits, *count;
  const I* labels;
  A* losses;
  T* dlogits;
  int64_t V, stride;
  MF_DEVICE void operator()(int64_t r) const {
    const int64_t label = labels[r];
    const A* row = logits + r * stride;
    T* gradient = dlogits ? dlogits + r * stride : nullptr;
    if (!isClass(label, V)) {
      // What is neither a class nor ignored poisons the loss.
      const A value = label == kIgnoredLabel ? A(0) : A(NAN);
      if (threadId() == 0) losses[r] = value;
      if (gradient) forRow(V, [&](int64_t i) { gradient[i] = static_cast<T>(value); });
      return;
    }
    const A lse = logSumExp(row, V), chosen = row[label];
    if (threadId() == 0) losses[r] = lse - chosen;
    syncThreads();  // dlogits may be the logits, of which all have read one
    if (gradient) logitsGrad(row, V, lse, label, A(1) / *count, gradient);
  }
};

// One block: adds the chunk's losses to the total, and after the last chunk writes the mean.
template <typename A>
struct AddLosses {
  const A *losses, *count;
  double* total;
  A* loss;
  int64_t rows;
  bool first;
  MF_DEVICE void operator()(int64_t) const {
    const double sum = rowSum<double>(rows, [&](int64_t r) { return static_cast<double>(losses[r]); });
    if (threadId() != 0) return;
    const double all = first ? sum : *total + sum;
    *total = all;
    *loss = *count == A(0) ? A(0) : static_cast<A>(all / static_cast<double>(*count));
  }
};

RowsOf plainRows(const void* data, int64_t width, int64_t stride) {
  return {data, width, RowMap::Sorted, nullptr, 1, stride};
}

}  // namespace

void CudaBackend::linearCrossEntropy(const LinearCrossEntropyArgs& args) {
  const int64_t N = args.x.size(0), D = args.x.size(1), V = args.weight.size(0);
  // Rows of logits begin at multiples of 16 bytes (the workspace has room for that): all copies are then
  // asynchronous, whatever V is.
  const int64_t chunk = args.logits.size(0), stride = ceilDiv(V, 8) * 8;
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    dispatchInteger(args.labels.dtype, [&]<typename I>() {
      using A = Accumulate<T>;
      const I* labels = args.labels.as<I>();
      A *loss = args.loss.as<A>(), *count = args.count.as<A>(), *losses = args.losses.as<A>();
      T* dlogits = args.dlogits.as<T>();
      double* total = scratchOf<double>(1);
      forRows(stream_, 1, N, CountLabels<A, I>{labels, N, V, count, fault_});
      if (N == 0) fill({args.loss, 0.0});
      if (N == 0 && args.dweight) fill({args.dweight, 0.0});
      for (int64_t first = 0; first < N; first += chunk) {
        const int64_t rows = minimum(chunk, N - first);
        const Groups groups{1, rows, nullptr};
        const RowsOf x = plainRows(args.x.as<T>() + first * D, D, D);
        Product logits{groups,
                       x,
                       args.weight.data,
                       true,
                       plainRows(args.logits.data, V, stride),
                       nullptr,
                       Epilogue::None,
                       UnaryKind::Relu,
                       nullptr};
        multiply<T, A>(stream_, logits);
        forRows(stream_, rows, V,
                RowLoss<T, I>{args.logits.as<A>(), count, labels + first, losses, dlogits, V, stride});
        forRows(stream_, 1, rows, AddLosses<A>{losses, count, total, loss, rows, first == 0});
        if (args.dx)
          multiply<T, T>(stream_, {groups, plainRows(dlogits, V, stride), args.weight.data, false,
                                   plainRows(args.dx.as<T>() + first * D, D, D), nullptr, Epilogue::None,
                                   UnaryKind::Relu, nullptr});
        if (!args.dweight) continue;
        if (args.dweightSum)
          weightGradient<T, A>(stream_,
                               {groups, plainRows(dlogits, V, stride), x, args.dweightSum.data, first > 0});
        else
          weightGradient<T, T>(stream_,
                               {groups, plainRows(dlogits, V, stride), x, args.dweight.data, first > 0});
      }
      if (N > 0 && args.dweight && args.dweightSum) copy({args.dweightSum, args.dweight});
    });
  });
  raiseFault();
}

}  // namespace mf::cuda
