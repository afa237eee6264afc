// Choosing experts, and the plan that sorts (token, choice) rows by expert.
#include "core/philox.h"
#include "cuda/cuda_backend.h"
#include "cuda/fault.cuh"
#include "cuda/pack.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

constexpr double kSampleFloor = 1e-6;  // added to every probability, so that any expert may be drawn
constexpr int kSortRows = 256;         // rows that one block of the counting sort places
// Up to so many rows every block counts all of them itself, which takes one launch; they are read from the
// L2.
constexpr int64_t kMostRowsCountedByAll = 16 << 10;

MF_DEVICE bool isChosen(const int32_t* chosen, int64_t count, int64_t e) {
  for (int64_t k = 0; k < count; ++k)
    if (chosen[k] == e) return true;
  return false;
}

// A token per thread.
template <typename A>
struct Route {
  const A* probs;
  int32_t* experts;
  A* gates;
  int64_t E, K, sample;
  RandomKey key;
  bool aligned;

  // The largest of those that rank behind expert `last` (-1: of all), lower index first on ties; NaN ranks
  // last, so the indices are distinct and legal whatever p holds.
  MF_DEVICE int64_t largest(const A* p, int64_t last) const {
    const auto rank = [](A value) { return value == value ? value : A(-INFINITY); };
    const A bound = last < 0 ? A(INFINITY) : rank(p[last]);
    int64_t best = -1;
    A most = A(0);
    const auto consider = [&](int64_t e, A own) {
      const A value = rank(own);
      if (value > bound || (value == bound && e <= last) || (best >= 0 && !(value > most))) return;
      best = e;
      most = value;
    };
    const int64_t packed = aligned ? E / kVector<A> * kVector<A> : 0;
    for (int64_t first = 0; first < packed; first += kVector<A>) {
      const Pack16<A> pack = loadVector(p + first);
      MF_UNROLL
      for (int e = 0; e < kVector<A>; ++e) consider(first + e, pack.elements[e]);
    }
    for (int64_t e = packed; e < E; ++e) consider(e, p[e]);
    return best;
  }

  MF_DEVICE int64_t draw(const A* p, const int32_t* chosen, int64_t count, uint64_t number) const {
    const auto weight = [&](int64_t e) {
      return isChosen(chosen, count, e) ? 0.0 : (p[e] > 0 ? static_cast<double>(p[e]) : 0.0) + kSampleFloor;
    };
    const PhiloxBlock block = philox(key, number);
    double total = 0;
    for (int64_t e = 0; e < E; ++e) total += weight(e);
    const double target = uniform01(block.word[0], block.word[1]) * total;
    double sum = 0;
    int64_t drawn = 0;  // the last candidate, should rounding leave the sum below the target
    for (int64_t e = 0; e < E; ++e) {
      const double w = weight(e);
      if (w == 0) continue;
      sum += w;
      drawn = e;
      if (sum > target) break;
    }
    return drawn;
  }

  MF_DEVICE void operator()(int64_t n) const {
    const A* p = probs + n * E;
    int32_t* chosen = experts + n * K;
    const int64_t given = K - sample;
    for (int64_t k = 0; k < K; ++k) {
      const int64_t e = k < given ? largest(p, k == 0 ? -1 : chosen[k - 1])
                                  : draw(p, chosen, k, static_cast<uint64_t>(n * sample + k - given));
      chosen[k] = static_cast<int32_t>(e);
      gates[n * K + k] = p[e];
    }
  }
};

struct Plan {
  const int32_t* experts;
  int32_t *offsets, *order, *inverse;
  int32_t* counts;  // [blocks, E]: rows of each expert; null where every block counts
  int64_t R, E, blocks;
  Fault* fault;

  // An expert out of range is a fault; it counts as 0, which keeps the plan legal.
  MF_DEVICE int32_t expert(int64_t r) const {
    const int32_t e = experts[r];
    if (e >= 0 && e < E) return e;
    report(fault, FaultKind::Expert, r, e, E);
    return 0;
  }
};

MF_KERNEL void countKernel(Plan plan) {
  MF_SHARED(int32_t, experts, kSortRows);
  const int64_t r = int64_t{blockId()} * kSortRows + threadId();
  experts[threadId()] = r < plan.R ? plan.expert(r) : -1;
  syncThreads();
  for (int64_t e = threadId(); e < plan.E; e += kSortRows) {
    int32_t count = 0;
    for (int i = 0; i < kSortRows; ++i) count += experts[i] == e;
    plan.counts[blockId() * plan.E + e] = count;
  }
}

// How many rows of each expert there are, before this block's and in all.
MF_DEVICE void countRows(const Plan& plan, const SharedSpan<int32_t>& before,
                         const SharedSpan<int32_t>& all) {
  const int E = static_cast<int>(plan.E);
  for (int e = threadId(); e < E; e += kSortRows) before[e] = all[e] = 0;
  syncThreads();
  const int64_t own = int64_t{blockId()} * kSortRows;
  for (int64_t r = threadId(); r < plan.R; r += kSortRows) {
    const int32_t e = plan.expert(r);
    atomicIncrement(all.at(e));
    if (r < own) atomicIncrement(before.at(e));
  }
}
// The same from the counts of all blocks: several threads add up those of an expert.
MF_DEVICE void addCounts(const Plan& plan, const SharedSpan<int32_t>& before,
                         const SharedSpan<int32_t>& all) {
  const int E = static_cast<int>(plan.E), groups = maximum(1, kSortRows / E);
  for (int i = threadId(); i < groups * E; i += kSortRows) {
    int32_t own = 0, total = 0;
    for (int64_t block = i / E; block < plan.blocks; block += groups) {
      const int32_t count = plan.counts[block * E + i % E];
      total += count;
      if (block < blockId()) own += count;
    }
    before[i] = own;
    all[i] = total;
  }
  syncThreads();
  for (int e = threadId(); e < E; e += kSortRows)
    for (int group = 1; group < groups; ++group) {
      before[e] += before[group * E + e];
      all[e] += all[group * E + e];
    }
}

// A block places its rows behind those of the blocks before it.
MF_KERNEL void placeKernel(Plan plan) {
  MF_SHARED(int32_t, experts, kSortRows);
  DynamicShared memory;
  const int E = static_cast<int>(plan.E), columns = maximum(1, kSortRows / E) * E;
  const SharedSpan<int32_t> before = memory.take<int32_t>(columns), all = memory.take<int32_t>(columns);
  const SharedSpan<int32_t> first = memory.take<int32_t>(E);  // of the block's rows of an expert
  if (plan.counts)
    addCounts(plan, before, all);
  else
    countRows(plan, before, all);
  const int64_t r = int64_t{blockId()} * kSortRows + threadId();
  const int32_t own = r < plan.R ? plan.expert(r) : -1;
  experts[threadId()] = own;
  syncThreads();
  if (threadId() == 0) {
    int32_t offset = 0;
    for (int e = 0; e < E; ++e) {
      first[e] = offset + before[e];
      if (blockId() == 0) plan.offsets[e] = offset;
      offset += all[e];
    }
    if (blockId() == 0) plan.offsets[E] = offset;
  }
  syncThreads();
  if (own < 0) return;
  int32_t rank = 0;
  for (int i = 0; i < threadId(); ++i) rank += experts[i] == own;
  const int32_t sorted = first[own] + rank;
  plan.order[sorted] = static_cast<int32_t>(r);
  plan.inverse[r] = sorted;
}

template <typename A>
struct GatherGates {
  const A* probs;
  const int32_t* experts;
  A* gates;
  int64_t E, K;
  Fault* fault;
  MF_DEVICE void operator()(int64_t r) const {
    const int32_t e = experts[r];
    const bool legal = e >= 0 && e < E;
    if (!legal) report(fault, FaultKind::Expert, r, e, E);
    gates[r] = legal ? probs[r / K * E + e] : A(NAN);
  }
};

// Adds, since a recorded plan may name an expert twice for a token.
template <typename A>
struct GatherGatesBackward {
  const A* dgates;
  const int32_t* experts;
  A* dprobs;
  int64_t E, K;
  MF_DEVICE void operator()(int64_t i) const {
    const int64_t n = i / E, e = i % E;
    A sum = A(0);
    for (int64_t k = 0; k < K; ++k)
      if (experts[n * K + k] == e) sum += dgates[n * K + k];
    dprobs[i] = sum;
  }
};

}  // namespace

void CudaBackend::route(const RouteArgs& args) {
  dispatchAccumulate(args.probs.dtype, [&]<typename A>() {
    const int64_t E = args.probs.size(-1);
    const bool aligned = isVectorAligned(args.probs.data) && E % kVector<A> == 0;
    forElements(stream_, args.experts.size(0),
                Route<A>{args.probs.as<A>(), args.experts.as<int32_t>(), args.gates.as<A>(), E,
                         args.experts.size(-1), args.sample, args.key, aligned});
  });
}

void CudaBackend::routePlan(const RoutePlanArgs& args) {
  const int64_t R = args.experts.numel(), E = args.offsets.numel() - 1, blocks = ceilDiv(R, kSortRows);
  const bool counted = R > kMostRowsCountedByAll;
  const Plan plan{args.experts.as<int32_t>(),
                  args.offsets.as<int32_t>(),
                  args.order.as<int32_t>(),
                  args.inverse.as<int32_t>(),
                  counted ? scratchOf<int32_t>(blocks * E) : nullptr,
                  R,
                  E,
                  blocks,
                  fault_};
  const size_t shared =
      static_cast<size_t>(maximum(int64_t{1}, kSortRows / E) * 2 + 1) * static_cast<size_t>(E) * 4;
  if (counted) launch(countKernel, {blocks}, kSortRows, 0, stream_, plan);
  // Without rows there are offsets all the same.
  launch(placeKernel, {maximum(int64_t{1}, blocks)}, kSortRows, shared + 48, stream_, plan);
  raiseFault();
}

void CudaBackend::gatherGates(const GatherGatesArgs& args) {
  dispatchAccumulate(args.probs.dtype, [&]<typename A>() {
    forElements(stream_, args.experts.numel(),
                GatherGates<A>{args.probs.as<A>(), args.experts.as<int32_t>(), args.gates.as<A>(),
                               args.probs.size(1), args.experts.size(1), fault_});
  });
  raiseFault();
}

void CudaBackend::gatherGatesBackward(const GatherGatesBackwardArgs& args) {
  dispatchAccumulate(args.dprobs.dtype, [&]<typename A>() {
    forElements(stream_, args.dprobs.numel(),
                GatherGatesBackward<A>{args.dgates.as<A>(), args.experts.as<int32_t>(), args.dprobs.as<A>(),
                                       args.dprobs.size(1), args.experts.size(1)});
  });
}

}  // namespace mf::cuda
