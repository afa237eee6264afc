// Forward, for heads that fit into shared memory and registers: key tiles run from the diagonal leftwards,
// and a block ends when the sticks of all its rows are spent. While scores are computed from the keys of a
// tile its values arrive, and while values are added the next keys.
#include "cuda/attention.cuh"

#include "cuda/attention_kernels.h"
#include "cuda/cuda_backend.h"
#include "cuda/softmax_attention.cuh"
#include "cuda/stick_breaking.cuh"

namespace mf::cuda {
namespace {

template <typename T>
struct ForwardOutput {
  T* out;
  Accumulate<T>* rowState;
  int32_t* live;
};

// Grid: row blocks of all heads, the longest rows first.
template <typename T, typename Weights, int kPanels>
MF_KERNEL void attentionKernel(AttentionInput<T> in, ForwardOutput<T> output) {
  using A = Accumulate<T>;
  constexpr int kFragments = kPanels * kPanel<T> / 8;
  in.checkPosition();
  DynamicShared memory;
  const PanelTile<T, kRowBlock> q(memory, kPanels);
  const PanelTile<T, kKeyTile> k(memory, kPanels), v(memory, kPanels);
  const int64_t heads = in.heads(), blocks = ceilDiv(in.rows(), kRowBlock);
  const RowBlock<T> rows(in, blockId() % heads, blocks - 1 - blockId() / heads);
  const int width = static_cast<int>(in.s.C);
  const auto loadKeys = [&](const PanelTile<T, kKeyTile>& tile, const T* data, int index) {
    loadPanels<kScoreThreads>(tile, keyRows(in, rows.b, rows.h, index, data), 0, 0, kPanels);
    commitCopies();
  };

  if (rows.firstTile <= rows.lastTile) {
    loadPanels<kScoreThreads>(q, queryRows(in, rows, in.q), 0, 0, kPanels);
    loadKeys(k, in.k, rows.lastTile);
  }
  Weights weights(rows);
  A sums[kFragments][4];
  clear(sums);
  for (int tile = rows.lastTile; tile >= rows.firstTile; --tile) {
    const bool live = weights.enter(tile);
    waitCopies<0>();
    if (!syncThreadsOr(live)) break;
    loadKeys(v, in.v, tile);
    uint32_t seen[2];
    rows.visible(tile, seen);
    A scores[8][4];
    clear(scores);
    addScores<T>(scores, q, warpId() * 16, k, in.depth());
    weights.apply(scores, seen, in.log2Scale);
    waitCopies<0>();
    syncThreads();
    if (tile > rows.firstTile) loadKeys(k, in.k, tile - 1);
    if constexpr (Weights::kDecays) {
      MF_UNROLL
      for (int j = 0; j < kFragments; ++j) MF_UNROLL
      for (int e = 0; e < 4; ++e) sums[j][e] *= weights.decay(e / 2);
    }
    addValues<T>(sums, scores, v, width);
  }

  weights.finish();
  MF_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (!rows.has(half)) continue;
    const int64_t row = rows.first + rows.rowOf(half), offset = in.rowOffset(rows.b, rows.h, row);
    const A factor = weights.finalFactor(half), rest = in.remainder ? weights.remainder(half) : A(0);
    const T* own = in.v + in.keyOffset(rows.b, rows.h, in.position(row));
    MF_UNROLL
    for (int j = 0; j < kFragments; ++j) {
      const int column = 8 * j + laneId() % 4 * 2;
      A pair[2] = {sums[j][2 * half] * factor, sums[j][2 * half + 1] * factor};
      for (int e = 0; in.remainder && e < 2; ++e)
        if (column + e < width) pair[e] += rest * static_cast<A>(own[column + e]);
      storePair(output.out + offset, column, width, in.aligned, pair[0], pair[1]);
    }
    if (!output.rowState || laneId() % 4 != 0) continue;
    output.rowState[offset / width] = weights.state(half);
    if (output.live) output.live[offset / width] = weights.live(half);
  }
}

template <typename T, typename Weights>
void attentionForward(StreamHandle stream, const AttentionArgs& args, Fault* fault) {
  const AttentionShape& s = args.shape;
  AttentionInput<T> in = attentionInput<T>(args, args.v);
  in.remainder = args.remainder;
  takePosition(in, args, fault);
  in.aligned = in.aligned && isAligned<T>(args.out.data, s.C);
  const ForwardOutput<T> output{args.out.as<T>(), args.rowState.as<Accumulate<T>>(), args.live.as<int32_t>()};
  dispatchPanels<T>(s, [&]<int kPanels>() {
    launch(attentionKernel<T, Weights, kPanels>, {ceilDiv(s.Tq * s.K, kRowBlock) * s.B * s.H}, kScoreThreads,
           3 * PanelTile<T, kKeyTile>::bytes(kPanels), stream, in, output);
  });
}

}  // namespace

void CudaBackend::attention(const AttentionArgs& args) {
  const ScratchOf scratchOf = [&](size_t bytes) { return scratch(bytes); };
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    if (isDecoding(args))
      decodeAttention(stream_, args, fault_, scratchOf);
    else if (isWide<T>(args.shape))
      wideAttention(stream_, args, fault_, scratchOf);
    else if (args.kind == AttentionKind::StickBreaking)
      attentionForward<T, StickWeights<T>>(stream_, args, fault_);
    else
      attentionForward<T, SoftmaxWeights<T>>(stream_, args, fault_);
  });
  if (args.position) raiseFault();
}

}  // namespace mf::cuda
