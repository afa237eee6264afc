// Choosing experts, and the plan that sorts (token, choice) rows by expert.
#include <algorithm>
#include <limits>
#include <string>

#include "core/error.h"
#include "core/philox.h"
#include "core/pool.h"
#include "cpu/cpu_backend.h"
#include "cpu/softmax.h"

namespace MF_CPU_NAMESPACE {
namespace {

constexpr int64_t kTaskElements = 16384;
constexpr double kSampleFloor = 1e-6;  // added to every probability, so that any expert may be drawn

int64_t tasksFor(int64_t rows, int64_t rowsPerTask) {
  return (rows + rowsPerTask - 1) / rowsPerTask;
}

// The `count` largest of p[0, E), falling, lower index first on ties. NaN ranks last and counts as a tie with
// NaN, so the indices are distinct and legal whatever p holds.
template <typename T>
void largest(const T* p, int64_t E, int64_t count, int32_t* chosen, T* rank) {
  for (int64_t e = 0; e < E; ++e) {
    const T value = p[e] == p[e] ? p[e] : -std::numeric_limits<T>::infinity();
    int64_t place = std::min(e, count);
    if (place == count && !(value > rank[count - 1])) continue;
    if (place == count) --place;
    for (; place > 0 && value > rank[place - 1]; --place) {
      rank[place] = rank[place - 1];
      chosen[place] = chosen[place - 1];
    }
    rank[place] = value;
    chosen[place] = static_cast<int32_t>(e);
  }
}

// Draws without replacement from the experts not chosen yet, one Philox block a draw.
template <typename T>
void drawRest(const T* p, int64_t E, int64_t given, int64_t count, RandomKey key, uint64_t firstDraw,
              int32_t* chosen, double* weight) {
  for (int64_t e = 0; e < E; ++e) weight[e] = (p[e] > 0 ? static_cast<double>(p[e]) : 0) + kSampleFloor;
  for (int64_t k = 0; k < given; ++k) weight[chosen[k]] = 0;
  for (int64_t draw = 0; draw < count; ++draw) {
    const PhiloxBlock block = philox(key, firstDraw + static_cast<uint64_t>(draw));
    double total = 0;
    for (int64_t e = 0; e < E; ++e) total += weight[e];
    const double target = uniform01(block.word[0], block.word[1]) * total;
    double sum = 0;
    int64_t drawn = 0;  // the last candidate, should rounding leave the sum below the target
    for (int64_t e = 0; e < E; ++e) {
      if (weight[e] == 0) continue;
      sum += weight[e];
      drawn = e;
      if (sum > target) break;
    }
    weight[drawn] = 0;
    chosen[given + draw] = static_cast<int32_t>(drawn);
  }
}

template <typename T>
void routeRows(const RouteArgs& a, int64_t begin, int64_t end) {
  const int64_t E = a.probs.size(-1), K = a.gates.size(-1), given = K - a.sample;
  double* weight =
      static_cast<double*>(threadScratch(static_cast<size_t>(E) * 8 + static_cast<size_t>(K) * 8));
  T* rank = reinterpret_cast<T*>(weight + E);
  for (int64_t n = begin; n < end; ++n) {
    T* p = a.probs.as<T>() + n * E;
    softmaxRow(a.logits.as<T>() + n * E, p, E);
    int32_t* chosen = a.plan.experts.as<int32_t>() + n * K;
    if (given > 0) largest(p, E, given, chosen, rank);
    if (a.sample > 0)
      drawRest(p, E, given, a.sample, a.key, static_cast<uint64_t>(n * a.sample), chosen, weight);
    for (int64_t k = 0; k < K; ++k) a.gates.as<T>()[n * K + k] = p[chosen[k]];
  }
}

int32_t checkedExpert(int32_t e, int64_t E) {
  if (e >= 0 && e < E) return e;
  throw Error(ErrorKind::Value,
              "experts holds " + std::to_string(e) + ", expected 0 to " + std::to_string(E - 1));
}

}  // namespace

void CpuBackend::route(const RouteArgs& a) {
  const int64_t N = a.gates.size(0), E = a.probs.size(-1);
  const int64_t rows = std::max<int64_t>(1, kTaskElements / E);
  Pool::instance().parallelFor(tasksFor(N, rows), [&](int64_t task) {
    const int64_t begin = task * rows, end = std::min(N, begin + rows);
    if (a.probs.dtype == DType::f64)
      routeRows<double>(a, begin, end);
    else
      routeRows<float>(a, begin, end);
  });
  routePlan(a.plan);
}

// A counting sort: each block of rows counts its experts, the counts become first positions (by expert, then
// by block), each block places its rows.
void CpuBackend::routePlan(const RoutePlanArgs& a) {
  const int64_t R = a.experts.numel(), E = a.offsets.numel() - 1;
  const int64_t blocks = tasksFor(R, kTaskElements);
  const int32_t* experts = a.experts.as<int32_t>();
  int32_t* offsets = a.offsets.as<int32_t>();
  int32_t* counts = static_cast<int32_t*>(threadScratch(static_cast<size_t>(blocks * E) * 4));

  Pool::instance().parallelFor(blocks, [&](int64_t block) {
    int32_t* count = counts + block * E;
    std::fill(count, count + E, 0);
    const int64_t end = std::min(R, (block + 1) * kTaskElements);
    for (int64_t r = block * kTaskElements; r < end; ++r) ++count[checkedExpert(experts[r], E)];
  });

  int32_t position = 0;
  for (int64_t e = 0; e < E; ++e) {
    offsets[e] = position;
    for (int64_t block = 0; block < blocks; ++block) {
      const int32_t count = counts[block * E + e];
      counts[block * E + e] = position;
      position += count;
    }
  }
  offsets[E] = position;

  Pool::instance().parallelFor(blocks, [&](int64_t block) {
    int32_t* next = counts + block * E;
    const int64_t end = std::min(R, (block + 1) * kTaskElements);
    for (int64_t r = block * kTaskElements; r < end; ++r) {
      const int32_t sorted = next[experts[r]]++;
      a.order.as<int32_t>()[sorted] = static_cast<int32_t>(r);
      a.inverse.as<int32_t>()[r] = sorted;
    }
  });
}

namespace {

template <typename T>
void gather(const GatherGatesArgs& a) {
  const int64_t N = a.experts.size(0), K = a.experts.size(1), E = a.probs.size(1);
  for (int64_t n = 0; n < N; ++n)
    for (int64_t k = 0; k < K; ++k)
      a.gates.as<T>()[n * K + k] =
          a.probs.as<T>()[n * E + checkedExpert(a.experts.as<int32_t>()[n * K + k], E)];
}

// Adds, since a recorded plan may name an expert twice for a token.
template <typename T>
void scatter(const GatherGatesBackwardArgs& a) {
  const int64_t N = a.experts.size(0), K = a.experts.size(1), E = a.dprobs.size(1);
  T* dprobs = a.dprobs.as<T>();
  std::fill(dprobs, dprobs + N * E, T(0));
  for (int64_t n = 0; n < N; ++n)
    for (int64_t k = 0; k < K; ++k)
      dprobs[n * E + checkedExpert(a.experts.as<int32_t>()[n * K + k], E)] += a.dgates.as<T>()[n * K + k];
}

}  // namespace

void CpuBackend::gatherGates(const GatherGatesArgs& a) {
  if (a.probs.dtype == DType::f64)
    gather<double>(a);
  else
    gather<float>(a);
}

void CpuBackend::gatherGatesBackward(const GatherGatesBackwardArgs& a) {
  if (a.dprobs.dtype == DType::f64)
    scatter<double>(a);
  else
    scatter<float>(a);
}

}  // namespace MF_CPU_NAMESPACE
