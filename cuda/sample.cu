// Choosing the next token, with Hugging Face's processors in their order: repetition penalty, temperature,
// top-k, top-p, then one draw. A row is never sorted: thresholds are found digit by digit, by counting and by
// summing.
#include "core/philox.h"
#include "cuda/cuda_backend.h"
#include "cuda/fault.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

constexpr int kSampleThreads = 512;
constexpr int kDigitBits = 4,
              kDigits = 1 << kDigitBits;  // a row is gone through for each digit of a threshold

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
    Bits kept = 0;
    if (topK > 0 && topK < V) kept = thresholdOf<int64_t>(score, topK, [](int64_t) { return int64_t{1}; });
    Bits threshold = kept;
    int64_t lastTie = V - 1;
    if (topP < 1) {
      const double limit = topP * rowSum<double>(V, [&](int64_t v) {
                             return orderedBits(score[v]) >= kept ? weight(v) : 0.0;
                           });
      threshold = maximum(kept, thresholdOf<double>(score, limit, weight));
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
    A most = A(-INFINITY);
    int64_t first = V;
    forRow(V, [&](int64_t v) {
      const A value = score[v];
      if (value > most || value != value) first = v;
      most = Max{}(value, most);
    });
    const A top = blockReduce(most, Max{});
    if (top != top || top == A(-INFINITY)) {
      if (threadId() == 0) report(fault, top != top ? FaultKind::LogitsNaN : FaultKind::NoToken, row, 0, V);
      return -1;
    }
    return blockReduce(most == top ? first : V, Min{});
  }

  // The largest t such that the values of the scores of t or more sum up to at least `limit` (and to more
  // than nothing).
  template <typename S, typename F>
  MF_DEVICE Bits thresholdOf(const A* score, S limit, F value) const {
    MF_SHARED(S, partial, kSampleThreads / kWarpSize * kDigits);
    const int warps = blockThreads() / kWarpSize;
    Bits threshold = 0;
    S above = S(0);  // of the scores whose digits so far are larger
    for (int shift = static_cast<int>(sizeof(Bits)) * 8 - kDigitBits; shift >= 0; shift -= kDigitBits) {
      S sums[kDigits] = {};
      forRow(V, [&](int64_t v) {
        const Bits rest = (orderedBits(score[v]) ^ threshold) >> shift;
        if (rest >= kDigits) return;
        const S own = value(v);
        MF_UNROLL
        for (int digit = 0; digit < kDigits; ++digit)
          if (rest == static_cast<Bits>(digit)) sums[digit] += own;
      });
      syncThreads();  // partial may still be read
      MF_UNROLL
      for (int digit = 0; digit < kDigits; ++digit) {
        const S sum = warpReduce(sums[digit], Add{});
        if (laneId() == 0) partial[warpId() * kDigits + digit] = sum;
      }
      syncThreads();
      int digit = kDigits - 1;
      for (;; --digit) {
        S sum = S(0);
        for (int warp = 0; warp < warps; ++warp) sum += partial[warp * kDigits + digit];
        if (digit == 0 || (above + sum >= limit && above + sum > S(0))) break;
        above += sum;
      }
      threshold |= static_cast<Bits>(digit) << shift;
    }
    return threshold;
  }

  // The last token whose score is the threshold that is still needed to reach `limit`; ties are kept lower
  // ids first.
  template <typename W>
  MF_DEVICE int64_t lastKeptTie(const A* score, Bits threshold, double limit, W weight) const {
    const Piece piece = ownPiece();
    double above = 0;
    int64_t ties = 0, one = -1;
    for (int64_t v = piece.begin; v < piece.end; ++v) {
      const Bits bits = orderedBits(score[v]);
      if (bits > threshold) above += weight(v);
      if (bits != threshold) continue;
      ++ties;
      one = v;
    }
    above = blockReduce(above, Add{});
    one = blockReduce(one, Max{});
    if (one < 0) return V - 1;
    const double each = weight(one);
    // Ties to keep, at least one.
    const double wanted = maximum(1.0, each > 0 ? std::ceil((limit - above) / each) : 1.0);
    int64_t total = 0, before = sumBefore(ties, total);
    if (static_cast<double>(total) <= wanted) return V - 1;
    int64_t last = V;
    for (int64_t v = piece.begin; v < piece.end && last == V; ++v)
      if (orderedBits(score[v]) == threshold && static_cast<double>(++before) >= wanted) last = v;
    return blockReduce(last, Min{});
  }

  // Part of a row, in the order of the threads.
  struct Piece {
    int64_t begin, end;
  };
  MF_DEVICE Piece ownPiece() const {
    const int64_t piece = ceilDiv(V, blockThreads()), begin = minimum(V, piece * threadId());
    return {begin, minimum(V, begin + piece)};
  }
  // The sum of the values of the threads before this one, and of all.
  template <typename S>
  MF_DEVICE S sumBefore(S own, S& total) const {
    MF_SHARED(S, values, kSampleThreads);
    syncThreads();
    values[threadId()] = own;
    syncThreads();
    S before = S(0);
    total = S(0);
    for (int t = 0; t < blockThreads(); ++t) {
      if (t == threadId()) before = total;
      total += values[t];
    }
    return before;
  }

  // The first token at which the running sum of weights exceeds a uniform part of the total; each thread adds
  // up a piece of the row.
  template <typename W>
  MF_DEVICE int64_t draw(int64_t row, W weight) const {
    MF_SHARED(int64_t, drawn, 1);
    const Piece piece = ownPiece();
    double own = 0, total = 0;
    for (int64_t v = piece.begin; v < piece.end; ++v) own += weight(v);
    const double before = sumBefore(own, total);
    const RandomKey stepKey{key.seed, key.stream + (step ? static_cast<uint64_t>(*step) : 0)};
    const PhiloxBlock block = philox(stepKey, static_cast<uint64_t>(row));
    const double target = uniform01(block.word[0], block.word[1]) * total;
    const bool mine = before <= target && target < before + own;
    // Should rounding leave every sum below the target: the last token with a weight.
    int64_t last = -1;
    double sum = before;
    for (int64_t v = piece.begin; v < piece.end; ++v) {
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
