// Backward in two passes without atomics, for heads that fit into shared memory and registers. The row pass
// runs key tiles from the left and makes dq; it leaves, for each row, what the column pass needs at each
// tile. The column pass owns a key tile and makes dk and dv over row blocks in rising order: both at once for
// one panel, by a kernel each for two and in f64, which registers could not hold together.
#include "cuda/attention_backward.cuh"
#include "cuda/attention_kernels.h"
#include "cuda/cuda_backend.h"

namespace mf::cuda {
namespace {

// Grid: row blocks of all heads.
template <typename T, typename Gradient, int kPanels>
MF_KERNEL void rowPassKernel(Backward<T> pass) {
  using A = Accumulate<T>;
  constexpr int kFragments = kPanels * kPanel<T> / 8;
  const AttentionInput<T>& in = pass.in;
  DynamicShared memory;
  const PanelTile<T, kRowBlock> q(memory, kPanels), dout(memory, kPanels);
  const PanelTile<T, kKeyTile> k(memory, kPanels), v(memory, kPanels);
  const int64_t heads = in.heads(), blocks = ceilDiv(in.rows(), kRowBlock);
  const RowBlock<T> rows(in, blockId() % heads, blocks - 1 - blockId() / heads);
  const int64_t head = rows.b * in.s.H + rows.h;
  const int width = static_cast<int>(in.s.C);
  const auto loadKeys = [&](const PanelTile<T, kKeyTile>& tile, const T* data, int index) {
    if (index <= rows.lastTile)
      loadPanels<kScoreThreads>(tile, keyRows(in, rows.b, rows.h, index, data), 0, 0, kPanels);
    commitCopies();
  };

  Gradient gradient;
  const int first = beginRows(pass, rows, gradient);
  if (first <= rows.lastTile) {
    loadPanels<kScoreThreads>(q, queryRows(in, rows, in.q), 0, 0, kPanels);
    loadPanels<kScoreThreads>(dout, queryRows(in, rows, pass.dout), 0, 0, kPanels);
    loadKeys(v, in.v, first);
    loadKeys(k, in.k, first);
  }
  A sums[kFragments][4];
  clear(sums);
  for (int tile = first; tile <= rows.lastTile; ++tile) {
    A scores[8][4], slopes[8][4];
    clear(scores);
    clear(slopes);
    waitCopies<1>();
    syncThreads();
    addScores<T>(slopes, dout, warpId() * 16, v, in.depth());
    waitCopies<0>();
    syncThreads();
    loadKeys(v, in.v, tile + 1);
    addScores<T>(scores, q, warpId() * 16, k, in.depth());
    uint32_t seen[2];
    rows.visible(tile, seen);
    gradient.template apply<false, true>(scores, slopes, seen, in.log2Scale, [&](int half, A product) {
      if constexpr (Gradient::kSticks) {
        gradient.enter(rows, tile, half, product);
        if (!rows.has(half) || laneId() % 4 != 0) return;
        const int64_t at = pass.state.at(head, tile, rows.first + rows.rowOf(half));
        pass.state.sticks[at] = gradient.stick(half);
        pass.state.prefixes[at] = gradient.prefix(half);
      }
    });
    addValues<T>(sums, slopes, k, width);
    syncThreads();
    loadKeys(k, in.k, tile + 1);
  }
  waitCopies<0>();
  endRows(pass, rows, gradient, first);
  MF_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (!rows.has(half)) continue;
    T* dq = pass.dq + in.rowOffset(rows.b, rows.h, rows.first + rows.rowOf(half));
    MF_UNROLL
    for (int j = 0; j < kFragments; ++j)
      storePair(dq, 8 * j + laneId() % 4 * 2, width, in.aligned, sums[j][2 * half] * in.scale,
                sums[j][2 * half + 1] * in.scale);
  }
}

// Writes the scores of this warp's rows as an operand [64, 64].
template <typename T, typename Tile>
MF_DEVICE void storeScores(const Tile& tile, const Accumulate<T> (&scores)[8][4]) {
  forScorePieces<T>(
      scores, [&](int row, int key, const Pack16<T>& piece) { storeVector(&tile.at(row, key), piece); });
}

// Grid: key tiles of all heads.
template <typename T, typename Gradient, int kPanels, Of kOf>
MF_KERNEL void columnPassKernel(Backward<T> pass) {
  using A = Accumulate<T>;
  constexpr int kFragments = kPanels * kPanel<T> / 8, kScorePanels = kKeyTile / kPanel<T>;
  constexpr bool kKeys = kOf != Of::Values, kValues = kOf != Of::Keys;
  const AttentionInput<T>& in = pass.in;
  DynamicShared memory;
  const PanelTile<T, kKeyTile> k(memory, kPanels), v(memory, kKeys ? kPanels : 0);
  const PanelTile<T, kRowBlock> q(memory, kPanels), dout(memory, kPanels);
  const PanelTile<T, kRowBlock> weights(memory, kValues ? kScorePanels : 0);
  const PanelTile<T, kRowBlock> dlogits(memory, kKeys ? kScorePanels : 0);
  const int64_t heads = in.heads(), head = blockId() % heads, b = head / in.s.H, h = head % in.s.H;
  const int tile = static_cast<int>(blockId() / heads), width = static_cast<int>(in.s.C);
  const int64_t blocks = pass.state.blocks;
  // The first block at or after `index` one of whose rows may see the tile.
  const auto nextBlock = [&](int64_t index) {
    while (index < blocks && pass.state.firstTile(head, index) > tile) ++index;
    return index;
  };
  const auto load = [&](const PanelTile<T, kRowBlock>& to, const T* data, int64_t index) {
    if (index >= blocks) return;
    const int64_t first = index * kRowBlock;
    const HeadRows<T> from{data + in.rowOffset(b, h, first), in.stride(),
                           minimum(int64_t{kRowBlock}, in.rows() - first), in.s.C, in.aligned};
    loadPanels<kScoreThreads>(to, from, 0, 0, kPanels);
  };

  A dk[kKeys ? kFragments : 1][4], dv[kValues ? kFragments : 1][4];
  clear(dk);
  clear(dv);
  int64_t index = nextBlock(firstBlock(in, tile));
  if (index < blocks) {
    loadPanels<kScoreThreads>(k, keyRows(in, b, h, tile, in.k), 0, 0, kPanels);
    if (kKeys) loadPanels<kScoreThreads>(v, keyRows(in, b, h, tile, in.v), 0, 0, kPanels);
    load(q, in.q, index);
    load(dout, pass.dout, index);
    commitCopies();
  }
  while (index < blocks) {
    const RowBlock<T> rows(in, head, index);
    const int64_t next = nextBlock(index + 1);
    waitCopies<0>();
    syncThreads();
    A scores[8][4], slopes[8][4];
    clear(scores);
    clear(slopes);
    addScores<T>(scores, q, warpId() * 16, k, in.depth());
    if constexpr (kKeys) addScores<T>(slopes, dout, warpId() * 16, v, in.depth());
    Gradient gradient;
    MF_UNROLL
    for (int half = 0; half < 2; ++half) {
      const bool has = rows.has(half);
      const int64_t row = rows.first + rows.rowOf(half);
      if constexpr (Gradient::kSticks) {
        const int64_t at = pass.state.at(head, tile, row);
        gradient.resume(half, has ? pass.state.sticks[at] : A(0), has ? pass.state.prefixes[at] : A(0));
      } else {
        gradient.begin(half, has ? pass.rowState[in.rowOffset(b, h, row) / width] : A(0),
                       has ? pass.state.rowValues[head * pass.state.rows + row] : A(0));
      }
    }
    uint32_t seen[2];
    rows.visible(tile, seen);
    gradient.template apply<kValues, kKeys>(scores, slopes, seen, in.log2Scale, [](int, A) {});
    if constexpr (kValues) storeScores<T>(weights, scores);
    if constexpr (kKeys) storeScores<T>(dlogits, slopes);
    syncThreads();
    if (!kKeys) load(q, in.q, next);
    if (!kValues) load(dout, pass.dout, next);
    if constexpr (kValues) addTransposed<T>(dv, weights, warpId() * 16, dout, width);
    if constexpr (kKeys) addTransposed<T>(dk, dlogits, warpId() * 16, q, width);
    syncThreads();
    if (kKeys) load(q, in.q, next);
    if (kValues) load(dout, pass.dout, next);
    commitCopies();
    index = next;
  }

  MF_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int64_t key = int64_t{tile} * kKeyTile + warpId() * 16 + laneId() / 4 + 8 * half;
    if (key >= in.s.keyCapacity) continue;
    const int64_t offset = in.keyOffset(b, h, key);
    MF_UNROLL
    for (int j = 0; j < kFragments; ++j) {
      const int column = 8 * j + laneId() % 4 * 2;
      if constexpr (kKeys)
        storePair(pass.dk + offset, column, width, in.aligned, dk[j][2 * half] * in.scale,
                  dk[j][2 * half + 1] * in.scale);
      if constexpr (kValues) {
        A pair[2] = {dv[j][2 * half], dv[j][2 * half + 1]};
        for (int e = 0; in.remainder && e < 2; ++e)
          if (column + e < width) pair[e] += remainderGradient(pass, head, key, column + e);
        storePair(pass.dv + offset, column, width, in.aligned, pair[0], pair[1]);
      }
    }
  }
}

template <typename T, typename Gradient, int kPanels, Of kOf>
void columnPass(StreamHandle stream, const Backward<T>& pass) {
  const AttentionShape& s = pass.in.s;
  constexpr int kScorePanels = kKeyTile / kPanel<T>;
  constexpr int kTiles = (kOf == Of::Values ? 3 : 4) * kPanels + (kOf == Of::Both ? 2 : 1) * kScorePanels;
  launch(columnPassKernel<T, Gradient, kPanels, kOf>, {ceilDiv(s.keyCapacity, kKeyTile) * s.B * s.H},
         kScoreThreads, PanelTile<T, kKeyTile>::bytes(kTiles), stream, pass);
}

template <typename T, typename Gradient>
void backward(StreamHandle stream, const Backward<T>& pass) {
  const AttentionShape& s = pass.in.s;
  dispatchPanels<T>(s, [&]<int kPanels>() {
    launch(rowPassKernel<T, Gradient, kPanels>, {pass.state.blocks * s.B * s.H}, kScoreThreads,
           PanelTile<T, kKeyTile>::bytes(4 * kPanels), stream, pass);
    if constexpr (kPanels == 1 && sizeof(T) < 8) {
      columnPass<T, Gradient, kPanels, Of::Both>(stream, pass);
    } else {
      columnPass<T, Gradient, kPanels, Of::Values>(stream, pass);
      columnPass<T, Gradient, kPanels, Of::Keys>(stream, pass);
    }
  });
}

}  // namespace

int64_t CudaBackend::attentionWorkspace(const AttentionShape& s, DType dtype) const {
  int64_t elements = 0;
  dispatchFloat(dtype,
                [&]<typename T>() { elements = BackwardState<Accumulate<T>>::elements(s, isWide<T>(s)); });
  return elements;
}

void CudaBackend::attentionBackward(const AttentionBackwardArgs& args) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    if (isWide<T>(args.shape)) {
      wideAttentionBackward(stream_, args, [&](size_t bytes) { return scratch(bytes); });
      return;
    }
    const Backward<T> pass = backwardOf<T>(args);
    if (args.kind == AttentionKind::StickBreaking)
      backward<T, StickGradient<T>>(stream_, pass);
    else
      backward<T, SoftmaxGradient<T>>(stream_, pass);
  });
}

}  // namespace mf::cuda
