// A token's output is the gated sum of its K rows, added in the order of its slots.
#include <algorithm>

#include "core/pool.h"
#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {
namespace {

constexpr int64_t kTaskElements = 16384;
constexpr int kTile = 256;  // columns summed at a time: the sums stay in the first-level cache
constexpr int kDotLanes = 64;

template <typename T>
void combineToken(const T* y, const Accumulate<T>* gates, T* out, int64_t K, int64_t D) {
  using Acc = Accumulate<T>;
  for (int64_t begin = 0; begin < D; begin += kTile) {
    const int64_t width = std::min<int64_t>(kTile, D - begin);
    Acc sum[kTile] = {};
    for (int64_t k = 0; k < K; ++k) {
      const Acc gate = gates ? gates[k] : Acc(1);
      const T* row = y + k * D + begin;
      for (int64_t d = 0; d < width; ++d) sum[d] += gate * static_cast<Acc>(row[d]);
    }
    for (int64_t d = 0; d < width; ++d) out[begin + d] = static_cast<T>(sum[d]);
  }
}

// Lanes of partial sums, then halved: a fixed order that vectorises.
template <typename T>
Accumulate<T> dot(const T* a, const T* b, int64_t n) {
  using Acc = Accumulate<T>;
  Acc lanes[kDotLanes] = {};
  int64_t i = 0;
  for (; i + kDotLanes <= n; i += kDotLanes)
    for (int l = 0; l < kDotLanes; ++l) lanes[l] += static_cast<Acc>(a[i + l]) * static_cast<Acc>(b[i + l]);
  for (int l = 0; i + l < n; ++l) lanes[l] += static_cast<Acc>(a[i + l]) * static_cast<Acc>(b[i + l]);
  for (int half = kDotLanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return lanes[0];
}

template <typename T>
void combineTokenBackward(const T* dout, const T* y, const Accumulate<T>* gates, T* dy, Accumulate<T>* dgates,
                          int64_t K, int64_t D) {
  using Acc = Accumulate<T>;
  for (int64_t k = 0; k < K; ++k) {
    const Acc gate = gates ? gates[k] : Acc(1);
    if (dy)
      for (int64_t d = 0; d < D; ++d) dy[k * D + d] = static_cast<T>(gate * static_cast<Acc>(dout[d]));
    if (dgates) dgates[k] = dot(dout, y + k * D, D);
  }
}

template <typename Body>
void forTokens(int64_t N, int64_t elements, Body body) {
  const int64_t rows = std::max<int64_t>(1, kTaskElements / std::max<int64_t>(1, elements));
  Pool::instance().parallelFor((N + rows - 1) / rows, [&](int64_t task) {
    for (int64_t n = task * rows; n < std::min(N, (task + 1) * rows); ++n) body(n);
  });
}

}  // namespace

void CpuBackend::combine(const CombineArgs& a) {
  const int64_t N = a.out.size(0), D = a.out.size(1), K = a.topK;
  dispatchFloat(a.y.dtype, [&]<typename T>() {
    forTokens(N, K * D, [&](int64_t n) {
      combineToken(a.y.as<T>() + n * K * D, a.gates ? a.gates.as<Accumulate<T>>() + n * K : nullptr,
                   a.out.as<T>() + n * D, K, D);
    });
  });
}

void CpuBackend::combineBackward(const CombineBackwardArgs& a) {
  const int64_t N = a.dout.size(0), D = a.dout.size(1), K = a.topK;
  dispatchFloat(a.dout.dtype, [&]<typename T>() {
    forTokens(N, 2 * K * D, [&](int64_t n) {
      combineTokenBackward(a.dout.as<T>() + n * D, a.y.as<T>() + n * K * D,
                           a.gates ? a.gates.as<Accumulate<T>>() + n * K : nullptr,
                           a.dy ? a.dy.as<T>() + n * K * D : nullptr,
                           a.dgates ? a.dgates.as<Accumulate<T>>() + n * K : nullptr, K, D);
    });
  });
}

}  // namespace MF_CPU_NAMESPACE
