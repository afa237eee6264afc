#include "cpu/cpu_backend.h"
#include "cpu/cross_entropy.h"
#include "cpu/gemm/gemm.h"
#include "cpu/parallel.h"

namespace MF_CPU_NAMESPACE {
namespace {

template <typename T>
struct Head {
  using A = Accumulate<T>;
  const LinearCrossEntropyArgs& args;
  int64_t N = args.x.size(0), D = args.x.size(1), V = args.weight.size(0), chunk = args.logits.size(0);
  A scale = A(0);  // 1 / count

  // Logits, losses and dlogits of rows [first, first + rows); returns the sum of the losses.
  template <typename I>
  double losses(const I* labels, int64_t first, int64_t rows) const {
    A *logits = args.logits.template as<A>(), *losses = args.losses.template as<A>();
    T* dlogits = args.dlogits.template as<T>();
    linearForward<T>(rows, D, V, args.x.template as<T>() + first * D, args.weight.template as<T>(), logits);
    forRows(rows, V, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t label = labels[first + r];
        const A* row = logits + r * V;
        losses[r] = A(0);
        if (label == kIgnoredLabel) {
          if (dlogits)
            for (int64_t i = 0; i < V; ++i) dlogits[r * V + i] = static_cast<T>(A(0));
          continue;
        }
        const A lse = logSumExp(row, V);
        losses[r] = lse - row[label];
        if (dlogits) logitsGrad(row, V, lse, label, scale, dlogits + r * V);
      }
    });
    double total = 0;
    for (int64_t r = 0; r < rows; ++r) total += static_cast<double>(losses[r]);
    return total;
  }

  void addWeightGrad(int64_t first, int64_t rows, bool accumulate) const {
    const T *x = args.x.template as<T>() + first * D, *dlogits = args.dlogits.template as<T>();
    if (args.dweightSum)
      linearWeightGrad<T, A>(rows, D, V, x, dlogits, args.dweightSum.template as<A>(), accumulate);
    else
      linearWeightGrad<T, T>(rows, D, V, x, dlogits, args.dweight.template as<T>(), accumulate);
  }

  template <typename I>
  void run(CpuBackend& backend) {
    const I* labels = args.labels.template as<I>();
    const int64_t count = countLabels(labels, N, V);
    scale = count == 0 ? A(0) : static_cast<A>(1.0 / static_cast<double>(count));
    double total = 0;
    bool accumulate = false;
    for (int64_t first = 0; first < N; first += chunk) {
      const int64_t rows = N - first < chunk ? N - first : chunk;
      T* dx = args.dx ? args.dx.template as<T>() + first * D : nullptr;
      if (countLabels(labels + first, rows, V) == 0) {
        if (dx)
          forElements(rows * D, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) dx[i] = static_cast<T>(A(0));
          });
        continue;
      }
      total += losses(labels, first, rows);
      if (dx) linearInputGrad<T>(rows, D, V, args.dlogits.template as<T>(), args.weight.template as<T>(), dx);
      if (args.dweight) addWeightGrad(first, rows, accumulate);
      accumulate = true;
    }
    if (args.dweight && !accumulate)
      backend.fill({args.dweight, 0.0});
    else if (args.dweight && args.dweightSum)
      backend.copy({args.dweightSum, args.dweight});
    *args.loss.template as<A>() = count == 0 ? A(0) : static_cast<A>(total / static_cast<double>(count));
    *args.count.template as<A>() = static_cast<A>(count);
  }
};

}  // namespace

void CpuBackend::linearCrossEntropy(const LinearCrossEntropyArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    dispatchLabels(args.labels.dtype, [&]<typename I>() { Head<T>{args}.template run<I>(*this); });
  });
}

}  // namespace MF_CPU_NAMESPACE
