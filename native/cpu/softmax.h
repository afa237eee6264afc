#pragma once
// The softmax of a row: exp(x) / sum(exp(x)).
#include <type_traits>

#include "cpu/lanes.h"
#include "cpu/unary.h"

namespace MF_CPU_NAMESPACE {

template <typename T, typename A = Accumulate<T>>
inline A rowMax(const T* x, int64_t width) {
  return laneMax<A>(width, [&](int64_t i) { return static_cast<A>(x[i]); });
}

template <typename T, typename A = Accumulate<T>>
inline void softmaxRow(const T* x, T* out, int64_t width) {
  const A max = rowMax(x, width);
  if constexpr (std::is_same_v<T, A>) {
    const A sum = laneSum<A>(width, [&](int64_t i) { return out[i] = expOf(x[i] - max); });
    for (int64_t i = 0; i < width; ++i) out[i] *= A(1) / sum;
  } else {  // the exponentials twice: out would round them before they are scaled
    const A sum = laneSum<A>(width, [&](int64_t i) { return expOf(static_cast<A>(x[i]) - max); });
    for (int64_t i = 0; i < width; ++i)
      out[i] = static_cast<T>(expOf(static_cast<A>(x[i]) - max) * (A(1) / sum));
  }
}

}  // namespace MF_CPU_NAMESPACE
