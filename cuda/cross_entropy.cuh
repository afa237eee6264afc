#pragma once
// What the cross-entropy ops share: the labels, and one row of logits.
#include "cuda/fault.cuh"
#include "cuda/pack.cuh"
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

// The sum of exp(x - most), with the greatest x so far; NaN wins.
template <typename A>
struct ExpSum {
  A most = A(-INFINITY), sum = A(0);
  template <int kWidth>
  MF_DEVICE void add(const Pack<A, kWidth>& pack) {
    A top = most;
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) top = Max{}(pack.elements[e], top);
    if (top == A(-INFINITY)) return;
    if (top != most) sum *= std::exp(most - top);
    most = top;
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) sum += std::exp(pack.elements[e] - top);
  }
};
struct MergeExpSums {
  template <typename A>
  MF_DEVICE ExpSum<A> operator()(const ExpSum<A>& a, const ExpSum<A>& b) const {
    const A top = Max{}(a.most, b.most);
    if (top == A(-INFINITY)) return a;
    // In one way for both orders, so that all lanes get the same bits.
    const bool first = a.most == top;
    const ExpSum<A>&larger = first ? a : b, &smaller = first ? b : a;
    return {top, larger.sum + smaller.sum * std::exp(smaller.most - top)};
  }
};
template <typename A>
MF_DEVICE ExpSum<A> shuffleXor(const ExpSum<A>& value, int mask) {
  return {shuffleXor(value.most, mask), shuffleXor(value.sum, mask)};
}

// Calls f(column, pack) over a row where it is aligned, f(column, one element) elsewhere and for the rest.
template <typename A, typename F>
MF_DEVICE void forRowPacks(const A* row, int64_t n, bool aligned, F f) {
  const int64_t packs = aligned ? n / kVector<A> : 0;
  for (int64_t i = threadId(); i < packs; i += blockThreads())
    f(i * kVector<A>, loadVector(row + i * kVector<A>));
  for (int64_t i = packs * kVector<A> + threadId(); i < n; i += blockThreads()) f(i, loadPack<1>(row + i));
}

template <typename A>
MF_DEVICE A logSumExp(const A* logits, int64_t V) {
  ExpSum<A> own;
  forRowPacks(logits, V, isVectorAligned(logits), [&](int64_t, const auto& pack) { own.add(pack); });
  const ExpSum<A> row = blockReduce(own, MergeExpSums{});
  return row.most + std::log(row.sum);
}

// (softmax - onehot) * scale; dlogits may be the logits themselves.
template <typename A, typename T>
MF_DEVICE void logitsGrad(const A* logits, int64_t V, A lse, int64_t label, A scale, T* dlogits) {
  const bool aligned =
      isVectorAligned(logits) && reinterpret_cast<uintptr_t>(dlogits) % alignof(Pack<T, kVector<A>>) == 0;
  forRowPacks(logits, V, aligned, [&]<int kWidth>(int64_t first, const Pack<A, kWidth>& pack) {
    Pack<T, kWidth> to;
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      const A p = std::exp(pack.elements[e] - lse);
      to.elements[e] = static_cast<T>((first + e == label ? p - A(1) : p) * scale);
    }
    storeVector(dlogits + first, to);
  });
}

// A label that may index a row: a fault has been reported for any other.
template <typename I>
MF_DEVICE bool isClass(I label, int64_t V) {
  return label >= 0 && label < V;
}

}  // namespace mf::cuda
