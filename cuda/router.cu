// Choosing experts, and the plan that sorts (token, choice) rows by expert.
#include "core/philox.h"
#include "cuda/counting_sort.cuh"
#include "cuda/cuda_backend.h"
#include "cuda/fault.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

constexpr double kSampleFloor = 1e-6;  // added to every probability, so that any expert may be drawn

MF_DEVICE bool isChosen(const int32_t* chosen, int64_t count, int64_t e) {
  for (int64_t k = 0; k < count; ++k)
    if (chosen[k] == e) return true;
  return false;
}

// What a warp does for a token: softmax, the largest, the draws.
template <typename A>
struct Route {
  const A* logits;
  A* probs;
  int32_t* experts;
  A* gates;
  int64_t E, K, sample;
  RandomKey key;

  MF_DEVICE void softmax(const A* x, A* p) const {
    A most = A(-INFINITY), sum = A(0);
    for (int64_t e = laneId(); e < E; e += kWarpSize) most = Max{}(x[e], most);
    most = warpReduce(most, Max{});
    for (int64_t e = laneId(); e < E; e += kWarpSize) sum += std::exp(x[e] - most);
    const A scale = A(1) / warpReduce(sum, Add{});
    for (int64_t e = laneId(); e < E; e += kWarpSize) p[e] = std::exp(x[e] - most) * scale;
  }

  // The largest of those that rank behind expert `last` (-1: of all), lower index first on ties; NaN ranks
  // last, so the indices are distinct and legal whatever p holds.
  MF_DEVICE int64_t largest(const A* p, int64_t last) const {
    const auto rank = [](A value) { return value == value ? value : A(-INFINITY); };
    const A bound = last < 0 ? A(INFINITY) : rank(p[last]);
    int64_t best = E;
    A most = A(-INFINITY);
    const auto consider = [&](int64_t e, A value) {
      if (value < most || (value == most && e >= best)) return;
      best = e;
      most = value;
    };
    for (int64_t e = laneId(); e < E; e += kWarpSize) {
      const A value = rank(p[e]);
      if (value < bound || (value == bound && e > last)) consider(e, value);
    }
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
      const int64_t e = shuffleXor(best, mask);
      consider(e, shuffleXor(most, mask));
    }
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

  // counts: of the block's rows of each expert.
  MF_DEVICE void operator()(int64_t n, const SharedSpan<int32_t>& counts) const {
    A* p = probs + n * E;
    int32_t* chosen = experts + n * K;
    softmax(logits + n * E, p);
    syncWarp();
    int64_t last = -1;
    const auto choose = [&](int64_t k, int64_t e) {
      chosen[k] = static_cast<int32_t>(e);
      gates[n * K + k] = p[e];
      atomicIncrement(counts.at(static_cast<int>(e)));
    };
    const int64_t given = K - sample;
    for (int64_t k = 0; k < given; ++k) {
      last = largest(p, last);
      if (laneId() == 0) choose(k, last);
    }
    if (laneId() != 0) return;
    for (int64_t k = given; k < K; ++k)
      choose(k, draw(p, chosen, k, static_cast<uint64_t>(n * sample + k - given)));
  }
};

// The rows of a plan, which begin at the token's.
struct PlanRows {
  const int32_t* experts;
  int32_t *offsets, *order, *inverse;
  int64_t E;
  Fault* fault;

  // An expert out of range is a fault; it counts as 0, which keeps the plan legal.
  MF_DEVICE int32_t key(int64_t r) const {
    const int32_t e = experts[r];
    if (e >= 0 && e < E) return e;
    report(fault, FaultKind::Expert, r, e, E);
    return 0;
  }
  MF_DEVICE void place(int64_t r, int32_t sorted) const {
    order[sorted] = static_cast<int32_t>(r);
    inverse[r] = sorted;
  }
  MF_DEVICE void begins(int32_t e, int32_t sorted) const { offsets[e] = sorted; }
};

template <typename A>
MF_KERNEL void routeKernel(Route<A> route, Sort<PlanRows> sort) {
  const SortMemory memory = SortMemory::take(sort.E);
  memory.clear();
  const int64_t end = sort.end() / route.K;
  for (int64_t n = sort.begin() / route.K + warpId(); n < end; n += kThreads / kWarpSize)
    route(n, memory.all);
  finishCounting(sort, memory);
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

template <typename Scratch>
static Sort<PlanRows> sortOf(const RoutePlanArgs& args, Fault* fault, Scratch scratch) {
  const int64_t E = args.offsets.numel() - 1;
  const SortBlocks blocks(args.experts.size(0), maximum(int64_t{1}, args.experts.size(1)));
  const PlanRows rows{args.experts.as<int32_t>(),
                      args.offsets.as<int32_t>(),
                      args.order.as<int32_t>(),
                      args.inverse.as<int32_t>(),
                      E,
                      fault};
  return {rows, args.experts.numel(), E, blocks.rows, blocks.count, scratch(blocks.count * E)};
}

void CudaBackend::route(const RouteArgs& args) {
  const Sort<PlanRows> sort = sortOf(args.plan, fault_, [&](int64_t n) { return scratchOf<int32_t>(n); });
  dispatchAccumulate(args.probs.dtype, [&]<typename A>() {
    const Route<A> route{args.logits.as<A>(),
                         args.probs.as<A>(),
                         args.plan.experts.as<int32_t>(),
                         args.gates.as<A>(),
                         args.probs.size(-1),
                         args.gates.size(-1),
                         args.sample,
                         args.key};
    launch(routeKernel<A>, {sort.blocks}, kThreads, SortMemory::bytes(sort.E), stream_, route, sort);
  });
  placeSorted(stream_, sort);
}

void CudaBackend::routePlan(const RoutePlanArgs& args) {
  sortRows(stream_, sortOf(args, fault_, [&](int64_t n) { return scratchOf<int32_t>(n); }));
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
