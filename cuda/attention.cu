#include "cuda/attention.cuh"

#include "cuda/cuda_backend.h"
#include "cuda/parallel.cuh"
#include "cuda/softmax_attention.cuh"
#include "cuda/stick_breaking.cuh"

namespace mf::cuda {
namespace {

template <typename T>
constexpr int kChunks = sizeof(T) == 8 ? 1 : 2;  // chunks of 64 output columns per block

template <typename T>
size_t forwardSharedBytes() {
  return 2 * kStagedElements<T> * sizeof(T) + kScoreElements<Accumulate<T>> * sizeof(Accumulate<T>) +
         (kRounds<T> ? kScoreElements<T> * sizeof(T) : 0);
}

template <typename T>
struct ForwardOutput {
  T* out;
  Accumulate<T>* rowState;
  int32_t* live;
};

// Grid: row blocks, pairs of column chunks, heads. Key tiles run from the diagonal leftwards.
template <typename T, typename Weights>
MF_KERNEL void attentionKernel(AttentionInput<T> in, ForwardOutput<T> output) {
  using A = Accumulate<T>;
  DynamicShared memory;
  const SharedSpan<T> a = memory.take<T>(kStagedElements<T>), b = memory.take<T>(kStagedElements<T>);
  const SharedSpan<A> scores = memory.take<A>(kScoreElements<A>);
  const SharedSpan<T> operand = operandTile<T>(memory, scores);
  MF_SHARED(A, factors, kTile);

  const int64_t blocks = ceilDiv(in.rows(), kTile);
  const RowBlock<T> rows(in, blockIdZ(), blocks - 1 - blockId());  // the longest first
  const HeadRows<T> q = queryRows(in, rows, in.q);
  const int64_t column = int64_t{blockIdY()} * kChunks<T> * kTile;
  const int r = threadId();
  const bool owner = r < kTile;
  Weights weights(rows);
  BlockProduct<T> sums[kChunks<T>];
  MF_UNROLL
  for (int n = 0; n < kChunks<T>; ++n) sums[n].clear();

  for (int64_t tile = rows.lastTile; tile >= rows.firstTile; --tile) {
    if (blockReduce(owner && weights.enter(tile) ? 1 : 0, Max{}) == 0) break;
    dotTile<T>(scores, a, b, q, keyRows(in, rows, tile, in.k), in.scale);
    if (owner) {
      A* row = scores.part(r * kOuterStride<A>, kTile).at(0);
      weights.apply(rows, tile * kTile, row);
      if constexpr (kRounds<T>)
        for (int j = 0; j < kTile; ++j) operand[r * kOuterStride<T> + j] = static_cast<T>(row[j]);
      factors[r] = weights.decay();
    }
    syncThreads();
    const HeadRows<T> values = keyRows(in, rows, tile, in.v);
    MF_UNROLL
    for (int n = 0; n < kChunks<T>; ++n) {
      if (column + n * kTile >= in.s.C) continue;
      if constexpr (Weights::kDecays) sums[n].forEach([&](int i, int, A& value) { value *= factors[i]; });
      multiplyShared<T, true>(sums[n], operand, b, values, column + n * kTile);
    }
  }

  syncThreads();
  if (owner) factors[r] = weights.finalFactor();
  if (owner) scores[r] = in.remainder ? weights.remainder() : A(0);
  syncThreads();
  MF_UNROLL
  for (int n = 0; n < kChunks<T>; ++n)
    forChunk(sums[n], rows.count, column + n * kTile, in.s.C, [&](int64_t i, int64_t c, A value) {
      value *= factors[static_cast<int>(i)];
      if (in.remainder)
        value += scores[static_cast<int>(i)] *
                 static_cast<A>(in.v[in.keyOffset(rows.b, rows.h, in.position(rows.first + i)) + c]);
      output.out[in.rowOffset(rows.b, rows.h, rows.first + i) + c] = static_cast<T>(value);
    });
  if (!output.rowState || blockIdY() != 0 || r >= rows.count) return;
  const int64_t state = in.rowOffset(rows.b, rows.h, rows.first + r) / in.s.C;
  output.rowState[state] = weights.state();
  if (output.live) output.live[state] = weights.live();
}

template <typename T, typename Weights>
void attentionForward(StreamHandle stream, const AttentionArgs& args) {
  const AttentionShape& s = args.shape;
  AttentionInput<T> in = attentionInput<T>(args, args.v);
  in.remainder = args.remainder;
  launch(attentionKernel<T, Weights>,
         {ceilDiv(s.Tq * s.K, kTile), ceilDiv(s.C, kChunks<T> * kTile), s.B * s.H}, kProductThreads,
         forwardSharedBytes<T>(), stream, in,
         ForwardOutput<T>{args.out.as<T>(), args.rowState.as<Accumulate<T>>(), args.live.as<int32_t>()});
}

// The weights of one row of the matrix [B, K, H, Tq, Tk].
template <typename T>
struct WeightRow {
  using A = Accumulate<T>;
  AttentionInput<T> in;
  A* weights;
  bool stickBreaking;

  MF_DEVICE void operator()(int64_t index) const {
    const int64_t i = index % in.s.Tq, h = index / in.s.Tq % in.s.H, k = index / in.s.Tq / in.s.H % in.s.K;
    const int64_t b = index / in.s.Tq / in.s.H / in.s.K, row = i * in.s.K + k;
    const int64_t limit = in.attendCurrent ? in.position(row) : in.position(row) - 1;
    const int64_t start = in.documentStart ? in.documentStart[b * in.s.Tq + i] : 0;
    const auto sees = [&](int64_t j) {
      return j >= start && j <= limit && (!in.keyMask || in.keyMask[b * in.s.Tk + j] != 0);
    };
    const T* q = in.q + in.rowOffset(b, h, row);
    A* out = weights + index * in.s.Tk;
    forRow(in.s.Tk, [&](int64_t j) {
      const T* key = in.k + in.keyOffset(b, h, j);
      A dot = A(0);
      for (int64_t c = 0; sees(j) && c < in.s.C; ++c) dot += static_cast<A>(q[c]) * static_cast<A>(key[c]);
      out[j] = dot * in.scale;
    });
    syncThreads();
    if (!stickBreaking) {
      const A top = rowMax<A>(in.s.Tk, [&](int64_t j) { return sees(j) ? out[j] : A(-INFINITY); });
      const A sum = rowSum<A>(in.s.Tk, [&](int64_t j) { return sees(j) ? std::exp(out[j] - top) : A(0); });
      forRow(in.s.Tk, [&](int64_t j) { out[j] = sees(j) ? std::exp(out[j] - top) / sum : A(0); });
      return;
    }
    if (threadId() != 0) return;
    double stick = 1;
    for (int64_t j = in.s.Tk - 1; j >= 0; --j) {
      const double logit = static_cast<double>(out[j]), u = std::exp(-std::abs(logit)), large = 1 / (1 + u);
      out[j] = sees(j) ? static_cast<A>((logit < 0 ? u * large : large) * stick) : A(0);
      if (sees(j)) stick *= logit < 0 ? large : u * large;
    }
  }
};

}  // namespace

void CudaBackend::attention(const AttentionArgs& args) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    if (args.kind == AttentionKind::StickBreaking)
      attentionForward<T, StickWeights<T>>(stream_, args);
    else
      attentionForward<T, SoftmaxWeights<T>>(stream_, args);
  });
}

void CudaBackend::attentionWeights(const AttentionWeightsArgs& args) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    const AttentionShape& s = args.shape;
    forRows(stream_, s.B * s.K * s.H * s.Tq, s.Tk,
            WeightRow<T>{attentionInput<T>(args, args.k), args.weights.as<Accumulate<T>>(),
                         args.kind == AttentionKind::StickBreaking});
  });
}

}  // namespace mf::cuda
