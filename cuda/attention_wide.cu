// Heads too wide for registers (1024 in MoLM). Their products dwarf the weights, so weights (and gradients of
// logits) of live tiles pass through scratch memory, which computes no score twice: a score kernel per row
// block, then products [64, 256] per block for out, or for dq, dk and dv. Heads are taken in groups whose
// scratch stays below kMostScratch.
#include "cuda/attention_backward.cuh"
#include "cuda/attention_kernels.h"

namespace mf::cuda {
namespace {

constexpr int64_t kMostScratch = int64_t{256} << 20;

// Weights and gradients of logits [heads, rows, keys], rows and keys up to whole tiles.
template <typename T>
struct ScoreMatrices {
  T *weights, *dlogits;
  int64_t firstHead, heads;  // the group
  int64_t rows, keys;
  MF_DEVICE int64_t at(int64_t head, int64_t row) const { return ((head - firstHead) * rows + row) * keys; }
};

// Calls f(matrices) for every group of heads; `count` matrices are used.
template <typename T, typename F>
void forHeadGroups(const AttentionShape& s, int count, T* scratch, int64_t group, F f) {
  const int64_t heads = s.B * s.H;
  ScoreMatrices<T> m{
      scratch, nullptr, 0, 0, ceilDiv(s.Tq * s.K, kRowBlock) * kRowBlock, ceilDiv(s.Tk, kKeyTile) * kKeyTile};
  if (count == 2) m.dlogits = scratch + group * m.rows * m.keys;
  for (; m.firstHead < heads; m.firstHead += group) {
    m.heads = minimum(group, heads - m.firstHead);
    f(m);
  }
}
template <typename T>
int64_t matrixBytes(const AttentionShape& s, int count) {
  return ceilDiv(s.Tq * s.K, kRowBlock) * kRowBlock * ceilDiv(s.Tk, kKeyTile) * kKeyTile * count *
         static_cast<int64_t>(sizeof(T));
}
template <typename T>
int64_t headsPerGroup(const AttentionShape& s, int count) {
  return minimum(s.B * s.H,
                 maximum(int64_t{1}, kMostScratch / maximum(int64_t{1}, matrixBytes<T>(s, count))));
}

// The steps of a score kernel: tiles from one to another, by a panel of the depth each, through a ring of
// stages in shared memory.
template <typename T, int kPairs, int kStages>
class ScoreSteps {
  using A = Accumulate<T>;

 public:
  static size_t bytes() { return PanelTile<T, kKeyTile>::bytes(2 * kPairs * kStages); }

  // pairs: what is multiplied, rows of the block by keys.
  MF_DEVICE ScoreSteps(DynamicShared& memory, const AttentionInput<T>& in, const RowBlock<T>& rows,
                       const T* const* left, const T* const* right)
      : in_(in),
        rows_(rows),
        tiles_(memory, 2 * kPairs * kStages),
        panels_(static_cast<int>(ceilDiv(in.s.C, kPanel<T>))) {
    MF_UNROLL
    for (int p = 0; p < kPairs; ++p) {
      left_[p] = left[p];
      right_[p] = right[p];
    }
  }

  // Goes through the tiles begin, begin + direction, .., `tiles` of them.
  MF_DEVICE void start(int begin, int direction, int tiles) {
    begin_ = begin;
    direction_ = direction;
    steps_ = tiles * panels_;
    loaded_ = done_ = 0;
    for (int i = 0; i < kStages - 1; ++i) load();
  }
  // The products of the next tile, unscaled.
  MF_DEVICE void next(A (&products)[kPairs][8][4]) {
    MF_UNROLL
    for (int p = 0; p < kPairs; ++p) clear(products[p]);
    for (int end = done_ + panels_; done_ < end; ++done_) {
      waitCopies<kStages - 2>();
      syncThreads();
      load();
      const int stage = done_ % kStages * 2 * kPairs;
      MF_UNROLL
      for (int p = 0; p < kPairs; ++p)
        addScores<T>(products[p], panel(stage + 2 * p), warpId() * 16, panel(stage + 2 * p + 1), kPanel<T>);
    }
  }
  // No copy is on its way afterwards, and stages may be filled anew.
  MF_DEVICE void stop() {
    waitCopies<0>();
    syncThreads();
  }

 private:
  using Tiles = PanelTile<T, kKeyTile>;
  MF_DEVICE Tiles panel(int index) const { return tiles_.part(index, 1); }

  MF_DEVICE void load() {
    if (loaded_ < steps_) {
      const int tile = begin_ + direction_ * (loaded_ / panels_), column = loaded_ % panels_ * kPanel<T>;
      const int stage = loaded_ % kStages * 2 * kPairs;
      MF_UNROLL
      for (int p = 0; p < kPairs; ++p) {
        loadPanels<kScoreThreads>(panel(stage + 2 * p), queryRows(in_, rows_, left_[p]), 0, column, 1);
        loadPanels<kScoreThreads>(panel(stage + 2 * p + 1), keyRows(in_, rows_.b, rows_.h, tile, right_[p]),
                                  0, column, 1);
      }
      ++loaded_;
    }
    commitCopies();
  }
  const AttentionInput<T>& in_;
  const RowBlock<T>& rows_;
  Tiles tiles_;
  const T *left_[kPairs], *right_[kPairs];
  int panels_, begin_ = 0, direction_ = 0, steps_ = 0, loaded_ = 0, done_ = 0;
};

template <typename T>
MF_DEVICE void storeScores(T* matrix, const ScoreMatrices<T>& m, const RowBlock<T>& rows, int64_t head,
                           int tile, const Accumulate<T> (&scores)[8][4]) {
  forScorePieces<T>(scores, [&](int row, int key, const Pack16<T>& piece) {
    storeVector(matrix + m.at(head, rows.first + row) + tile * kKeyTile + key, piece);
  });
}

template <typename T>
struct WideForward {
  AttentionInput<T> in;
  T* out;
  Accumulate<T>* rowState;
  int32_t* live;
  BackwardState<Accumulate<T>> state;
};

// Grid: row blocks of a group of heads. Softmax goes twice: first for the log-sum-exp.
template <typename T, typename Weights>
MF_KERNEL void wideScoresKernel(WideForward<T> pass, ScoreMatrices<T> matrices) {
  using A = Accumulate<T>;
  using Steps = ScoreSteps<T, 1, 3>;
  const AttentionInput<T>& in = pass.in;
  in.checkPosition();
  DynamicShared memory;
  const int64_t blocks = pass.state.blocks, head = matrices.firstHead + blockId() % matrices.heads;
  const RowBlock<T> rows(in, head, blocks - 1 - blockId() / matrices.heads);
  Steps steps(memory, in, rows, &in.q, &in.k);
  const int tiles = maximum(rows.lastTile - rows.firstTile + 1, 0);
  int first = rows.lastTile + 1;
  Weights weights(rows);
  steps.start(rows.lastTile, -1, tiles);
  for (int tile = rows.lastTile; tile >= rows.firstTile; --tile) {
    if (!syncThreadsOr(weights.enter(tile))) break;
    uint32_t seen[2];
    rows.visible(tile, seen);
    A scores[1][8][4];
    steps.next(scores);
    weights.apply(scores[0], seen, in.log2Scale);
    if constexpr (!Weights::kDecays) storeScores(matrices.weights, matrices, rows, head, tile, scores[0]);
    first = tile;
  }
  steps.stop();
  weights.finish();
  if constexpr (Weights::kDecays) {
    SoftmaxGradient<T> final;
    for (int half = 0; half < 2; ++half) final.begin(half, weights.state(half), A(0));
    steps.start(rows.lastTile, -1, tiles);
    for (int tile = rows.lastTile; tile >= rows.firstTile; --tile) {
      uint32_t seen[2];
      rows.visible(tile, seen);
      A scores[1][8][4];
      steps.next(scores);
      final.template apply<true, false>(scores[0], scores[0], seen, in.log2Scale, [](int, A) {});
      storeScores(matrices.weights, matrices, rows, head, tile, scores[0]);
    }
    steps.stop();
  }
  if (threadId() == 0) pass.state.firstTiles[head * blocks + rows.first / kRowBlock] = static_cast<A>(first);
  MF_UNROLL
  for (int half = 0; half < 2; ++half) {
    if (!rows.has(half) || laneId() % 4 != 0) continue;
    const int64_t row = rows.first + rows.rowOf(half), index = in.rowOffset(rows.b, rows.h, row) / in.s.C;
    pass.state.rowValues[head * pass.state.rows + row] = weights.remainder(half);
    if (!pass.rowState) continue;
    pass.rowState[index] = weights.state(half);
    if (pass.live) pass.live[index] = weights.live(half);
  }
}

// Both at once but in f64, for which there are not enough registers.
template <typename T, typename Gradient, Of kOf>
MF_KERNEL void wideGradientsKernel(Backward<T> pass, ScoreMatrices<T> matrices) {
  using A = Accumulate<T>;
  constexpr bool kKeys = kOf != Of::Values, kValues = kOf != Of::Keys;
  constexpr int kPairs = kKeys ? 2 : 1;
  using Steps = ScoreSteps<T, kPairs, 2>;
  const AttentionInput<T>& in = pass.in;
  DynamicShared memory;
  const int64_t blocks = pass.state.blocks, head = matrices.firstHead + blockId() % matrices.heads;
  const RowBlock<T> rows(in, head, blocks - 1 - blockId() / matrices.heads);
  const T *const left[] = {in.q, pass.dout}, *const right[] = {in.k, in.v};
  Steps steps(memory, in, rows, left, right);
  Gradient gradient;
  const int first = beginRows(pass, rows, gradient);
  steps.start(first, 1, maximum(rows.lastTile - first + 1, 0));
  for (int tile = first; tile <= rows.lastTile; ++tile) {
    A products[kPairs][8][4];
    steps.next(products);
    uint32_t seen[2];
    rows.visible(tile, seen);
    gradient.template apply<kValues, kKeys>(products[0], products[kPairs - 1], seen, in.log2Scale,
                                            [&](int half, A product) {
                                              if constexpr (Gradient::kSticks)
                                                gradient.enter(rows, tile, half, product);
                                            });
    if constexpr (kValues) storeScores(matrices.weights, matrices, rows, head, tile, products[0]);
    if constexpr (kKeys) storeScores(matrices.dlogits, matrices, rows, head, tile, products[1]);
  }
  steps.stop();
  if constexpr (kKeys) endRows(pass, rows, gradient, first);
}

// Which product: out = weights v, dq = dlogits k by row blocks; dv = weights^T dout, dk = dlogits^T q by key
// tiles.
enum class Wide { Out, Dq, Dk, Dv };

constexpr int kWideColumns = 256, kWideThreads = 256, kWideStages = 2;

// The parts of the depth of a product: live tiles of 64, in steps of a panel.
template <typename T, bool kTransposed>
class DepthSteps {
 public:
  static constexpr int kSteps = kKeyTile / kPanel<T>;
  // outer: the row block or the key tile that the product is for.
  template <typename State>
  MF_DEVICE DepthSteps(const AttentionInput<T>& in, const State& state, int64_t head, int64_t outer,
                       int64_t lastTile)
      : outer_(outer) {
    if constexpr (kTransposed) {
      tile_ = firstBlock(in, outer) - 1;
      end_ = state.blocks;
    } else {
      tile_ = state.firstTile(head, outer) - 1;
      end_ = lastTile + 1;
    }
    step_ = kSteps - 1;
  }
  template <typename State>
  MF_DEVICE bool advance(const State& state, int64_t head) {
    if (++step_ < kSteps) return true;
    step_ = 0;
    ++tile_;
    if constexpr (kTransposed)
      while (tile_ < end_ && state.firstTile(head, tile_) > outer_) ++tile_;
    return tile_ < end_;
  }
  MF_DEVICE int64_t first() const { return tile_ * kKeyTile + step_ * kPanel<T>; }

 private:
  int64_t outer_, tile_, end_;
  int step_;
};

template <typename T, Wide kWide>
constexpr bool kIsTransposed = kWide == Wide::Dk || kWide == Wide::Dv;

// Grid: row blocks or key tiles of a group of heads, chunks of 256 columns.
template <typename T, Wide kWide, typename Pass>
MF_KERNEL void wideProductKernel(Pass pass, ScoreMatrices<T> matrices, const T* left, const T* right,
                                 T* out) {
  using A = Accumulate<T>;
  using F = Fragments<T>;
  constexpr bool kTransposed = kIsTransposed<T, kWide>;
  constexpr int kLeftRows = kTransposed ? kPanel<T> : kRowBlock,
                kLeftPanels = kTransposed ? 64 / kPanel<T> : 1;
  constexpr int kRightPanels = kWideColumns / kPanel<T>;
  const AttentionInput<T>& in = pass.in;
  DynamicShared memory;
  const PanelTile<T, kLeftRows> lefts(memory, kWideStages * kLeftPanels);
  const PanelTile<T, kPanel<T>> rights(memory, kWideStages * kRightPanels);
  const int64_t head = matrices.firstHead + blockId() % matrices.heads, outer = blockId() / matrices.heads;
  const int64_t b = head / in.s.H, h = head % in.s.H, column = int64_t{blockIdY()} * kWideColumns;
  const int64_t firstRow = outer * kRowBlock;  // of a row block
  const int64_t lastRow = minimum(in.rows(), firstRow + kRowBlock) - 1;
  const HeadRows<T> leftRows{left + matrices.at(head, kTransposed ? 0 : firstRow), matrices.keys,
                             kTransposed ? matrices.rows : int64_t{kRowBlock}, matrices.keys, true};
  const HeadRows<T> rightRows{right + (kTransposed ? in.rowOffset(b, h, 0) : in.keyOffset(b, h, 0)),
                              in.stride(), kTransposed ? in.rows() : in.keys(), in.s.C, in.aligned};
  DepthSteps<T, kTransposed> steps(
      in, pass.state, head, outer,
      kTransposed ? 0 : (in.position(lastRow) - (in.attendCurrent ? 0 : 1) + kKeyTile) / kKeyTile - 1);
  const auto load = [&](int stage) {
    const int64_t k = steps.first();
    loadPanels<kWideThreads>(lefts.part(stage * kLeftPanels, kLeftPanels), leftRows, kTransposed ? k : 0,
                             kTransposed ? outer * kKeyTile : k, kLeftPanels);
    loadPanels<kWideThreads>(rights.part(stage * kRightPanels, kRightPanels), rightRows, k, column,
                             kRightPanels);
  };

  // Eight warps, each [32, 64] of the block's [64, 256].
  const int row = warpId() % 2 * 32, ownColumn = warpId() / 2 * 64;
  const int64_t width = in.s.C - column - ownColumn;
  A sums[2][8][4];
  clear(sums[0]);
  clear(sums[1]);
  bool more = steps.advance(pass.state, head);
  if (more) load(0);
  commitCopies();
  for (int stage = 0; more; stage ^= 1) {
    waitCopies<0>();
    syncThreads();
    more = steps.advance(pass.state, head);
    if (more) load(stage ^ 1);
    commitCopies();
    const PanelTile<T, kLeftRows> leftTile = lefts.part(stage * kLeftPanels, kLeftPanels);
    const PanelTile<T, kPanel<T>> rightTile = rights.part(stage * kRightPanels, kRightPanels);
    for (int k = 0; k < kPanel<T>; k += F::kDepth) {
      typename F::Left a[2];
      MF_UNROLL
      for (int i = 0; i < 2; ++i) {
        if constexpr (kTransposed)
          F::loadLeftTransposed(leftTile, row + 16 * i, k, a[i]);
        else
          F::loadLeft(leftTile, row + 16 * i, k, a[i]);
      }
      MF_UNROLL
      for (int j = 0; j < 8; j += 2) {
        if (8 * j >= width) continue;
        typename F::Right first, second;
        F::loadRightTransposed(rightTile, RowsFrom{k}, {ownColumn, 8 * j}, first, second);
        MF_UNROLL
        for (int i = 0; i < 2; ++i) {
          F::multiply(sums[i][j], a[i], first);
          F::multiply(sums[i][j + 1], a[i], second);
        }
      }
    }
  }
  waitCopies<0>();

  MF_UNROLL
  for (int i = 0; i < 2; ++i) MF_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int64_t index = firstRow + row + 16 * i + 8 * half + laneId() / 4;
    if (index >= (kTransposed ? in.s.keyCapacity : in.rows())) continue;
    T* to = out + (kTransposed ? in.keyOffset(b, h, index) : in.rowOffset(b, h, index));
    MF_UNROLL
    for (int j = 0; j < 8; ++j) {
      const int64_t c = column + ownColumn + 8 * j + laneId() % 4 * 2;
      A pair[2];
      for (int e = 0; e < 2; ++e) {
        pair[e] = sums[i][j][2 * half + e];
        if constexpr (kWide == Wide::Dq || kWide == Wide::Dk) pair[e] *= in.scale;
        if (!in.remainder || c + e >= in.s.C) continue;
        if constexpr (kWide == Wide::Out)
          pair[e] += pass.state.rowValues[head * pass.state.rows + index] *
                     static_cast<A>(in.v[in.keyOffset(b, h, in.position(index)) + c + e]);
        if constexpr (kWide == Wide::Dv) pair[e] += remainderGradient(pass, head, index, c + e);
      }
      storePair(to, c, in.s.C, in.aligned, pair[0], pair[1]);
    }
  }
}

template <Wide kWide, typename T, typename Pass>
void launchProduct(StreamHandle stream, const Pass& pass, const ScoreMatrices<T>& m, const T* left,
                   const T* right, T* out) {
  const AttentionShape& s = pass.in.s;
  const int64_t outer = kIsTransposed<T, kWide> ? ceilDiv(s.keyCapacity, kKeyTile) : pass.state.blocks;
  launch(wideProductKernel<T, kWide, Pass>, {outer * m.heads, ceilDiv(s.C, kWideColumns)}, kWideThreads,
         kWideStages * (size_t{128} * 64 + size_t{kWideColumns} * 128), stream, pass, m, left, right, out);
}

template <typename T, typename Weights>
void forward(StreamHandle stream, const AttentionArgs& args, Fault* fault, const ScratchOf& scratch) {
  using A = Accumulate<T>;
  const AttentionShape& s = args.shape;
  const int64_t group = headsPerGroup<T>(s, 1), matrices = group * matrixBytes<T>(s, 1);
  const int64_t stateBytes = BackwardState<A>::elements(s, true) * static_cast<int64_t>(sizeof(A));
  char* memory = static_cast<char*>(scratch(static_cast<size_t>(matrices + stateBytes)));
  WideForward<T> pass{attentionInput<T>(args, args.v), args.out.as<T>(), args.rowState.as<A>(),
                      args.live.as<int32_t>(),
                      BackwardState<A>(reinterpret_cast<A*>(memory + matrices), s, true)};
  pass.in.remainder = args.remainder;
  takePosition(pass.in, args, fault);
  pass.in.aligned = pass.in.aligned && isAligned<T>(args.out.data, s.C);
  forHeadGroups(s, 1, reinterpret_cast<T*>(memory), group, [&](const ScoreMatrices<T>& m) {
    launch(wideScoresKernel<T, Weights>, {pass.state.blocks * m.heads}, kScoreThreads,
           ScoreSteps<T, 1, 3>::bytes(), stream, pass, m);
    launchProduct<Wide::Out, T>(stream, pass, m, m.weights, pass.in.v, pass.out);
  });
}

template <typename T, typename Gradient, Of kOf>
void wideGradients(StreamHandle stream, const Backward<T>& pass, const ScoreMatrices<T>& m) {
  using Steps = ScoreSteps<T, kOf == Of::Values ? 1 : 2, 2>;
  launch(wideGradientsKernel<T, Gradient, kOf>, {pass.state.blocks * m.heads}, kScoreThreads, Steps::bytes(),
         stream, pass, m);
}

template <typename T, typename Gradient>
void backward(StreamHandle stream, const AttentionBackwardArgs& args, const ScratchOf& scratch) {
  const AttentionShape& s = args.shape;
  const int64_t group = headsPerGroup<T>(s, 2);
  const Backward<T> pass = backwardOf<T>(args);
  T* memory = static_cast<T*>(scratch(static_cast<size_t>(group * matrixBytes<T>(s, 2))));
  forHeadGroups(s, 2, memory, group, [&](const ScoreMatrices<T>& m) {
    if constexpr (sizeof(T) < 8) {
      wideGradients<T, Gradient, Of::Both>(stream, pass, m);
    } else {
      wideGradients<T, Gradient, Of::Values>(stream, pass, m);
      wideGradients<T, Gradient, Of::Keys>(stream, pass, m);
    }
    launchProduct<Wide::Dq, T>(stream, pass, m, m.dlogits, pass.in.k, pass.dq);
    launchProduct<Wide::Dv, T>(stream, pass, m, m.weights, pass.dout, pass.dv);
    launchProduct<Wide::Dk, T>(stream, pass, m, m.dlogits, pass.in.q, pass.dk);
  });
}

}  // namespace

void wideAttention(StreamHandle stream, const AttentionArgs& args, Fault* fault, const ScratchOf& scratch) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    if (args.kind == AttentionKind::StickBreaking)
      forward<T, StickWeights<T>>(stream, args, fault, scratch);
    else
      forward<T, SoftmaxWeights<T>>(stream, args, fault, scratch);
  });
}

void wideAttentionBackward(StreamHandle stream, const AttentionBackwardArgs& args, const ScratchOf& scratch) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    if (args.kind == AttentionKind::StickBreaking)
      backward<T, StickGradient<T>>(stream, args, scratch);
    else
      backward<T, SoftmaxGradient<T>>(stream, args, scratch);
  });
}

}  // namespace mf::cuda
