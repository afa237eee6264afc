// Choosing the next token, with Hugging Face's processors in their order: repetition penalty, temperature,
// top-k, top-p, then one draw. A row is never sorted: thresholds are found bit by bit, by counting and by
// summing.
#include "core/philox.h"
#include "cuda/cuda_backend.h"
#include "cuda/fault.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

constexpr int kSampleThreads = 512;  // a row is gone through for each bit of a threshold

// An unsigned integer in the order of the number.
MF_DEVICE uint32_t orderedBits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
MF_DEVICE uint64_t orderedBits(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits >> 63 ? ~bits : bits | (uint64_t{1} << 63);
}

template <typename A>
struct Sample {
  const A* logits;
  const int32_t *history, *step;
  int32_t* out;
  A* scores;  // [B, V]
  int64_t V, S, topK;
  double temperature, topP, penalty;
  RandomKey key;
  Fault* fault;
  using Bits = decltype(orderedBits(A()));

  MF_DEVICE void operator()(int64_t row) const {
    A* score = scores + row * V;
    penalise(row, score);
    const int64_t best = firstMaximum(row, score);
    if (best < 0 || temperature == 0 || score[best] == A(INFINITY)) {
      if (threadId() == 0) out[row] = static_cast<int32_t>(best);
      return;
    }
    const A top = score[best];
    const double inverse = 1 / temperature;
    const auto weight = [&](int64_t v) {
      return static_cast<double>(std::exp((score[v] - top) * static_cast<A>(inverse)));
    };
    const Bits kept = topK > 0 && topK < V ? topKThreshold(score) : Bits(0);
    Bits threshold = kept;
    int64_t lastTie = V - 1;
    if (topP < 1) {
      const double limit = topP * rowSum<double>(V, [&](int64_t v) {
                             return orderedBits(score[v]) >= kept ? weight(v) : 0.0;
                           });
      threshold = topPThreshold(score, kept, limit, weight);
      lastTie = lastKeptTie(score, threshold, limit, weight);
    }
    const int64_t token = draw(row, [&](int64_t v) {
      const Bits bits = orderedBits(score[v]);
      return bits > threshold || (bits == threshold && v <= lastTie) ? weight(v) : 0.0;
    });
    if (threadId() == 0) out[row] = static_cast<int32_t>(token);
  }

  // score = logits, those of the history's tokens penalised once each.
  MF_DEVICE void penalise(int64_t row, A* score) const {
    const A* from = logits + row * V;
    forRow(V, [&](int64_t v) { score[v] = from[v]; });
    if (!history || penalty == 1) return;
    syncThreads();
    const A factor = static_cast<A>(penalty);
    forRow(S, [&](int64_t s) {
      const int32_t token = history[row * S + s];
      if (token == -1) return;
      if (token < 0 || token >= V) return report(fault, FaultKind::History, row * S + s, token, V);
      // From the logit: threads that meet the same token write the same score.
      score[token] = from[token] < A(0) ? from[token] * factor : from[token] / factor;
    });
    syncThreads();
  }

  // -1 where there is none: NaN and a row of -infinity are faults.
  MF_DEVICE int64_t firstMaximum(int64_t row, const A* score) const {
    syncThreads();
    int bad = 0;
    for (int64_t v = threadId(); v < V; v += blockThreads()) bad |= score[v] != score[v];
    if (blockReduce(bad, Max{}) != 0) {
      if (threadId() == 0) report(fault, FaultKind::LogitsNaN, row, 0, V);
      return -1;
    }
    const A most = rowMax<A>(V, [&](int64_t v) { return score[v]; });
    if (most == A(-INFINITY)) {
      if (threadId() == 0) report(fault, FaultKind::NoToken, row, 0, V);
      return -1;
    }
    int64_t first = V;
    for (int64_t v = threadId(); v < V; v += blockThreads())
      if (score[v] == most && v < first) first = v;
    return blockReduce(first, Min{});
  }

  // Reached by the topK largest scores, all that tie with the last of them, and no other.
  MF_DEVICE Bits topKThreshold(const A* score) const {
    Bits threshold = 0;
    for (int bit = static_cast<int>(sizeof(Bits)) * 8 - 1; bit >= 0; --bit) {
      const Bits candidate = threshold | Bits(1) << bit;
      const int64_t count =
          rowSum<int64_t>(V, [&](int64_t v) { return int64_t{orderedBits(score[v]) >= candidate}; });
      if (count >= topK) threshold = candidate;
      if (count == topK) break;
    }
    return threshold;
  }

  // The largest t >= kept such that the scores of t or more weigh at least `limit`.
  template <typename W>
  MF_DEVICE Bits topPThreshold(const A* score, Bits kept, double limit, W weight) const {
    Bits threshold = 0;
    for (int bit = static_cast<int>(sizeof(Bits)) * 8 - 1; bit >= 0; --bit) {
      const Bits candidate = threshold | Bits(1) << bit;
      const double sum =
          rowSum<double>(V, [&](int64_t v) { return orderedBits(score[v]) >= candidate ? weight(v) : 0.0; });
      if (sum >= limit && sum > 0) threshold = candidate;
    }
    return maximum(threshold, kept);
  }

  // The last token whose score is the threshold that is still needed to reach `limit`; ties are kept lower
  // ids first.
  template <typename W>
  MF_DEVICE int64_t lastKeptTie(const A* score, Bits threshold, double limit, W weight) const {
    const double above =
        rowSum<double>(V, [&](int64_t v) { return orderedBits(score[v]) > threshold ? weight(v) : 0.0; });
    int64_t first = V;
    for (int64_t v = threadId(); v < V; v += blockThreads())
      if (orderedBits(score[v]) == threshold && v < first) first = v;
    first = blockReduce(first, Min{});
    if (first == V) return V - 1;
    const double each = weight(first), missing = limit - above;
    const double wanted = each > 0 ? std::ceil(missing / each) : 1;  // ties to keep, at least one
    int64_t low = first, high = V - 1;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      const int64_t ties =
          rowSum<int64_t>(middle + 1, [&](int64_t v) { return int64_t{orderedBits(score[v]) == threshold}; });
      if (static_cast<double>(ties) >= wanted)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }

  // The first token at which the running sum of weights exceeds a uniform part of the total; each thread adds
  // up a piece of the row.
  template <typename W>
  MF_DEVICE int64_t draw(int64_t row, W weight) const {
    MF_SHARED(double, pieces, kSampleThreads);
    MF_SHARED(int64_t, drawn, 1);
    const int64_t piece = ceilDiv(V, blockThreads());
    const int64_t begin = minimum(V, piece * threadId()), end = minimum(V, begin + piece);
    double own = 0;
    for (int64_t v = begin; v < end; ++v) own += weight(v);
    syncThreads();
    pieces[threadId()] = own;
    syncThreads();
    double before = 0, total = 0;
    for (int t = 0; t < blockThreads(); ++t) {
      if (t == threadId()) before = total;
      total += pieces[t];
    }
    const RandomKey stepKey{key.seed, key.stream + (step ? static_cast<uint64_t>(*step) : 0)};
    const PhiloxBlock block = philox(stepKey, static_cast<uint64_t>(row));
    const double target = uniform01(block.word[0], block.word[1]) * total;
    const bool mine = before <= target && target < before + own;
    // Should rounding leave every sum below the target: the last token with a weight.
    int64_t last = -1;
    double sum = before;
    for (int64_t v = begin; v < end; ++v) {
      const double w = weight(v);
      if (!(w > 0)) continue;
      last = v;
      sum += w;
      if (mine && sum > target) break;
    }
    const int64_t fallback = blockReduce(mine ? int64_t{-1} : last, Max{});
    const int64_t found = blockReduce(mine ? last : int64_t{-1}, Max{});
    if (threadId() == 0) drawn[0] = found >= 0 ? found : fallback;
    syncThreads();
    return drawn[0];
  }
};

}  // namespace

void CudaBackend::sample(const SampleArgs& args) {
  const int64_t B = args.logits.size(0), V = args.logits.size(1);
  dispatchAccumulate(args.logits.dtype, [&]<typename A>() {
    const Sample<A> sample{args.logits.as<A>(),
                           args.history.as<int32_t>(),
                           args.step.as<int32_t>(),
                           args.out.as<int32_t>(),
                           scratchOf<A>(B * V),
                           V,
                           args.history ? args.history.size(1) : 0,
                           args.topK,
                           args.temperature,
                           args.topP,
                           args.repetitionPenalty,
                           args.key,
                           fault_};
    launch(rowKernel<Sample<A>>, {B}, V <= 256 ? kWarpSize : kSampleThreads, 0, stream_, sample);
  });
  raiseFault();
}

}  // namespace mf::cuda
