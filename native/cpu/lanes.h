#pragma once
// Reductions along a row in a fixed order: kWidth interleaved partial results, then a tree over them. The
// loops over lanes are vectorised by the compiler.
#include "cpu/simd.h"

namespace MF_CPU_NAMESPACE {

constexpr int64_t kWidth = 32;

template <typename A, typename Combine>
inline A foldLanes(A (&lanes)[kWidth], Combine combine) {
  for (int64_t half = kWidth / 2; half > 0; half /= 2)
    for (int64_t l = 0; l < half; ++l) lanes[l] = combine(lanes[l], lanes[l + half]);
  return lanes[0];
}

// combine over term(i), i in [0, n); `start` is combine's neutral element.
template <typename A, typename Term, typename Combine>
inline A laneReduce(int64_t n, A start, Term term, Combine combine) {
  A lanes[kWidth];
  for (int64_t l = 0; l < kWidth; ++l) lanes[l] = start;
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth)
    for (int64_t l = 0; l < kWidth; ++l) lanes[l] = combine(lanes[l], term(i + l));
  for (int64_t l = 0; i + l < n; ++l) lanes[l] = combine(lanes[l], term(i + l));
  return foldLanes(lanes, combine);
}

template <typename A, typename Term>
inline A laneSum(int64_t n, Term term) {
  return laneReduce<A>(n, A(0), term, [](A a, A b) { return a + b; });
}

// The largest term; one that is NaN is passed over.
template <typename A, typename Term>
inline A laneMax(int64_t n, Term term) {
  return laneReduce<A>(n, -A(__builtin_inf()), term, [](A a, A b) { return b > a ? b : a; });
}

}  // namespace MF_CPU_NAMESPACE
