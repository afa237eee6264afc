// Two passes, no atomics. The row pass runs key tiles from the left and makes dq; it leaves, for each row,
// what the column pass needs at each tile: stick and prefix (stick-breaking), or the row's mean gradient
// (softmax). The column pass owns a key tile and makes dk and dv over row blocks in rising order.
// attention.cuh tells of rows and chunks.
#include "cuda/attention.cuh"
#include "cuda/cuda_backend.h"
#include "cuda/parallel.cuh"
#include "cuda/stick_breaking.cuh"

namespace mf::cuda {
namespace {

template <typename T>
constexpr int kRowChunks = sizeof(T) == 8 ? 1 : 2;  // chunks of 64 columns of dq per block

// What the row pass leaves in the workspace, per row of [B * H, Tq * K]: stick and prefix of every tile, then
// the remainder (stick-breaking) or the mean gradient (softmax), then the first tile of the row's block.
int64_t stateElements(int64_t Tk) {
  return 2 * ceilDiv(Tk, kTile) + 2;
}

template <typename T>
struct Backward {
  using A = Accumulate<T>;
  AttentionInput<T> in;
  const T *out, *dout;
  const A* rowState;
  const int32_t* live;
  T *dq, *dk, *dv;
  A* workspace;
  int64_t tiles;
  bool stickBreaking;

  // Row r of a block.
  MF_DEVICE A* state(const RowBlock<T>& rows, int64_t r) const {
    return workspace + ((rows.b * in.s.H + rows.h) * in.rows() + rows.first + r) * (2 * tiles + 2);
  }
  MF_DEVICE A dot(const T* x, const T* y) const {
    A sum = A(0);
    for (int64_t c = 0; c < in.s.C; ++c) sum += static_cast<A>(x[c]) * static_cast<A>(y[c]);
    return sum;
  }
};

template <typename T>
struct BackwardTiles {
  using A = Accumulate<T>;
  SharedSpan<T> a, b;
  SharedSpan<A> weights, dlogits, sigmoids;
  SharedSpan<T> weightOperand, dlogitOperand;

  MF_DEVICE explicit BackwardTiles(DynamicShared& memory)
      : a(memory.take<T>(kStagedElements<T>)),
        b(memory.take<T>(kStagedElements<T>)),
        weights(memory.take<A>(kScoreElements<A>)),
        dlogits(memory.take<A>(kScoreElements<A>)),
        sigmoids(memory.take<A>(kScoreElements<A>)),
        weightOperand(operandTile<T>(memory, weights)),
        dlogitOperand(operandTile<T>(memory, dlogits)) {}
  static size_t bytes() {
    return 2 * kStagedElements<T> * sizeof(T) + 3 * kScoreElements<A> * sizeof(A) +
           (kRounds<T> ? 2 * kScoreElements<T> * sizeof(T) : 0);
  }
  MF_DEVICE static A* row(const SharedSpan<A>& tile) {
    return tile.part(threadId() * kOuterStride<A>, kTile).at(0);
  }
  MF_DEVICE void round() const {
    if constexpr (kRounds<T>)
      for (int j = 0; j < kTile; ++j) {
        weightOperand[threadId() * kOuterStride<T> + j] = static_cast<T>(row(weights)[j]);
        dlogitOperand[threadId() * kOuterStride<T> + j] = static_cast<T>(row(dlogits)[j]);
      }
  }
};

// Softmax: weights and dlogits of this thread's row of a tile, from the log-sum-exp and the mean gradient.
template <typename T, typename A = Accumulate<T>>
MF_DEVICE void softmaxRow(const RowBlock<T>& rows, int64_t firstKey, A logSum, A mean, A* weights,
                          A* dlogits) {
  for (int j = 0; j < kTile; ++j) {
    const A weight = rows.sees(firstKey + j) ? std::exp(weights[j] - logSum) : A(0);
    weights[j] = weight;
    dlogits[j] = weight * (dlogits[j] - mean);
  }
}

// Grid: row blocks, pairs of column chunks of dq, heads.
template <typename T>
MF_KERNEL void rowPassKernel(Backward<T> pass) {
  using A = Accumulate<T>;
  const AttentionInput<T>& in = pass.in;
  DynamicShared memory;
  const BackwardTiles<T> tiles(memory);
  const int64_t blocks = ceilDiv(in.rows(), kTile);
  const RowBlock<T> rows(in, blockIdZ(), blocks - 1 - blockId());
  const HeadRows<T> q = queryRows(in, rows, in.q), dout = queryRows(in, rows, pass.dout);
  const int64_t column = int64_t{blockIdY()} * kRowChunks<T> * kTile;
  const int r = threadId();
  const bool owner = r < rows.count, writer = owner && blockIdY() == 0;

  StickGradient<T> stick;
  A logSum = A(0), mean = A(0);
  const int64_t offset = in.rowOffset(rows.b, rows.h, rows.first + r);
  A* state = pass.state(rows, r);
  if (owner) logSum = pass.rowState[offset / in.s.C];
  if (owner && !pass.stickBreaking) mean = pass.dot(pass.out + offset, pass.dout + offset);
  A ownGradient = A(0);
  if (owner && in.remainder)
    ownGradient =
        pass.dot(in.v + in.keyOffset(rows.b, rows.h, in.position(rows.first + r)), pass.dout + offset);
  stick.begin(rows, logSum, owner && pass.stickBreaking ? pass.live[offset / in.s.C] : 0, in.remainder,
              ownGradient);
  int64_t first = rows.firstTile;
  if (pass.stickBreaking) first = maximum(first, blockReduce(stick.firstTile(), Min{}));
  if (first <= rows.lastTile) stick.beginTiles();

  BlockProduct<T> sums[kRowChunks<T>];
  MF_UNROLL
  for (int n = 0; n < kRowChunks<T>; ++n) sums[n].clear();
  for (int64_t tile = first; tile <= rows.lastTile; ++tile) {
    const HeadRows<T> keys = keyRows(in, rows, tile, in.k);
    dotTile<T>(tiles.weights, tiles.a, tiles.b, q, keys, in.scale);
    dotTile<T>(tiles.dlogits, tiles.a, tiles.b, dout, keyRows(in, rows, tile, in.v), A(1));
    if (r < kTile) {
      A *weights = tiles.row(tiles.weights), *dlogits = tiles.row(tiles.dlogits);
      if (pass.stickBreaking) {
        A* sigmoids = tiles.row(tiles.sigmoids);
        const A product = StickGradient<T>::breakTile(rows, tile * kTile, weights, sigmoids);
        stick.enter(rows, tile, (tile + 1) * kTile, product);
        if (writer) state[2 * tile] = stick.stick();
        if (writer) state[2 * tile + 1] = stick.prefix();
        stick.apply(weights, dlogits, sigmoids);
      } else {
        softmaxRow(rows, tile * kTile, logSum, mean, weights, dlogits);
      }
      tiles.round();
    }
    syncThreads();
    MF_UNROLL
    for (int n = 0; n < kRowChunks<T>; ++n)
      if (column + n * kTile < in.s.C)
        multiplyShared<T, true>(sums[n], tiles.dlogitOperand, tiles.b, keys, column + n * kTile);
  }
  if (writer) {
    state[2 * pass.tiles] = pass.stickBreaking ? stick.remainder() : mean;
    state[2 * pass.tiles + 1] = static_cast<A>(first);
  }
  MF_UNROLL
  for (int n = 0; n < kRowChunks<T>; ++n)
    forChunk(sums[n], rows.count, column + n * kTile, in.s.C, [&](int64_t i, int64_t c, A value) {
      pass.dq[in.rowOffset(rows.b, rows.h, rows.first + i) + c] = static_cast<T>(value * in.scale);
    });
}

// Grid: key tiles, column chunks of dk and dv, heads.
template <typename T>
MF_KERNEL void columnPassKernel(Backward<T> pass) {
  using A = Accumulate<T>;
  const AttentionInput<T>& in = pass.in;
  DynamicShared memory;
  const BackwardTiles<T> tiles(memory);
  const int64_t tile = blockId(), column = int64_t{blockIdY()} * kTile, blocks = ceilDiv(in.rows(), kTile);
  const int r = threadId();
  BlockProduct<T> dk, dv;
  dk.clear();
  dv.clear();
  for (int64_t index = 0; index < blocks; ++index) {
    const RowBlock<T> rows(in, blockIdZ(), index);
    const int64_t first = static_cast<int64_t>(pass.state(rows, 0)[2 * pass.tiles + 1]);
    if (tile > rows.lastTile || tile < first) continue;
    const HeadRows<T> q = queryRows(in, rows, in.q), dout = queryRows(in, rows, pass.dout);
    dotTile<T>(tiles.weights, tiles.a, tiles.b, q, keyRows(in, rows, tile, in.k), in.scale);
    dotTile<T>(tiles.dlogits, tiles.a, tiles.b, dout, keyRows(in, rows, tile, in.v), A(1));
    if (r < kTile) {
      A *weights = tiles.row(tiles.weights), *dlogits = tiles.row(tiles.dlogits);
      const bool owner = r < rows.count;
      const A* state = pass.state(rows, r);
      if (pass.stickBreaking) {
        A* sigmoids = tiles.row(tiles.sigmoids);
        StickGradient<T>::breakTile(rows, tile * kTile, weights, sigmoids);
        StickGradient<T> stick;
        stick.resume(owner ? state[2 * tile] : A(0), owner ? state[2 * tile + 1] : A(0));
        stick.apply(weights, dlogits, sigmoids);
      } else {
        const int64_t offset = in.rowOffset(rows.b, rows.h, rows.first + r) / in.s.C;
        softmaxRow(rows, tile * kTile, owner ? pass.rowState[offset] : A(0),
                   owner ? state[2 * pass.tiles] : A(0), weights, dlogits);
      }
      tiles.round();
    }
    syncThreads();
    multiplyShared<T, false>(dv, tiles.weightOperand, tiles.b, dout, column);
    multiplyShared<T, false>(dk, tiles.dlogitOperand, tiles.b, q, column);
  }

  const int64_t b = blockIdZ() / in.s.H, h = blockIdZ() % in.s.H;
  const int64_t keys = minimum(int64_t{kTile}, in.s.keyCapacity - tile * kTile);
  forChunk(dk, keys, column, in.s.C, [&](int64_t j, int64_t c, A value) {
    pass.dk[in.keyOffset(b, h, tile * kTile + j) + c] = static_cast<T>(value * in.scale);
  });
  forChunk(dv, keys, column, in.s.C, [&](int64_t j, int64_t c, A value) {
    const int64_t key = tile * kTile + j, i = key - (in.s.Tk - in.s.Tq);
    if (in.remainder && i >= 0 && i < in.s.Tq)  // the key is the own one of the K rows of its position
      for (int64_t k = 0; k < in.s.K; ++k) {
        const int64_t row = i * in.s.K + k;
        const A* state = pass.workspace + (int64_t{blockIdZ()} * in.rows() + row) * (2 * pass.tiles + 2);
        value += state[2 * pass.tiles] * static_cast<A>(pass.dout[in.rowOffset(b, h, row) + c]);
      }
    pass.dv[in.keyOffset(b, h, key) + c] = static_cast<T>(value);
  });
}

}  // namespace

int64_t CudaBackend::attentionWorkspace(const AttentionShape& s, DType) const {
  return s.B * s.H * s.Tq * s.K * stateElements(s.Tk);
}

void CudaBackend::attentionBackward(const AttentionBackwardArgs& args) {
  const AttentionShape& s = args.shape;
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    Backward<T> pass{attentionInput<T>(args, args.v),
                     args.out.as<T>(),
                     args.dout.as<T>(),
                     args.rowState.as<A>(),
                     args.live.as<int32_t>(),
                     args.dq.as<T>(),
                     args.dk.as<T>(),
                     args.dv.as<T>(),
                     args.workspace.as<A>(),
                     ceilDiv(s.Tk, kTile),
                     args.kind == AttentionKind::StickBreaking};
    pass.in.remainder = args.remainder;
    pass.in.aligned = pass.in.aligned && isAligned<T>(args.dout.data, s.C);
    const size_t shared = BackwardTiles<T>::bytes();
    launch(rowPassKernel<T>, {ceilDiv(s.Tq * s.K, kTile), ceilDiv(s.C, kRowChunks<T> * kTile), s.B * s.H},
           kProductThreads, shared, stream_, pass);
    launch(columnPassKernel<T>, {ceilDiv(s.keyCapacity, kTile), ceilDiv(s.C, kTile), s.B * s.H},
           kProductThreads, shared, stream_, pass);
  });
}

}  // namespace mf::cuda
