// Few query rows on a long cache, without gradients: decoding. Every block takes 64 keys of a head and
// streams their keys and values once, for all rows; it leaves partial sums as if the stick were whole to the
// right of its keys (softmax: relative to its own maximum). A second kernel puts them together in the order
// of the keys.
#include "cuda/attention_kernels.h"
#include "cuda/softmax_attention.cuh"
#include "cuda/stick_breaking.cuh"

namespace mf::cuda {
namespace {

constexpr int kDecodeThreads = 128, kDecodeWarps = kDecodeThreads / kWarpSize;
constexpr int kMostRows = 16, kMostQueryBytes = 32 << 10;
constexpr int kRowsTogether = 4;  // share what is read of the cache
constexpr int kInFlight = 4;      // vectors that a lane asks for at once

// sums [heads, rows, segments, C]; measures [heads, rows, segments, 2]: the product of a segment's sticks, or
// its maximum and its sum.
template <typename T>
struct Decode {
  using A = Accumulate<T>;
  AttentionInput<T> in;
  T* out;
  A *sums, *measures;
  bool stickBreaking;
  MF_DEVICE int64_t segments() const { return ceilDiv(in.s.Tk, kKeyTile); }  // in memory
  MF_DEVICE int64_t at(int64_t head, int64_t row) const { return (head * in.rows() + row) * segments(); }
};

// kWidth elements of a row from `column` on.
template <int kWidth, typename T>
MF_DEVICE void loadElements(const T* row, T (&elements)[kWidth]) {
  if constexpr (kWidth == 1) {
    elements[0] = row[0];
  } else {
    const Pack16<T> vector = loadVector(row);
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) elements[e] = vector.elements[e];
  }
}

// The least power of two that is not below n, at most `most`.
MF_DEVICE int powerNotBelow(int n, int most) {
  int power = 1;
  while (power < n && power < most) power *= 2;
  return power;
}

// scores[row, key] = q . k for rows [firstRow, firstRow + kRowsTogether): several lanes to a key.
template <int kWidth, typename T, typename A>
MF_DEVICE void decodeScores(const AttentionInput<T>& in, const T* keys, int keyCount, const SharedSpan<T>& q,
                            int firstRow, const SharedSpan<A>& scores) {
  const int C = static_cast<int>(in.s.C), rows = static_cast<int>(in.rows()), pieces = C / kWidth;
  const int lanes = powerNotBelow(pieces, kWarpSize), lane = laneId() % lanes;
  const int keysOfWarp = kWarpSize / lanes, step = keysOfWarp * kDecodeWarps;
  for (int key = warpId() * keysOfWarp + laneId() / lanes; key - laneId() / lanes < keyCount;
       key += step * kInFlight) {
    A sums[kInFlight][kRowsTogether] = {};
    for (int piece = lane; piece < pieces; piece += lanes) {
      T elements[kInFlight][kWidth];
      MF_UNROLL
      for (int n = 0; n < kInFlight; ++n) {
        const int own = minimum(key + n * step, keyCount - 1);
        loadElements<kWidth>(keys + own * in.stride() + piece * kWidth, elements[n]);
      }
      MF_UNROLL
      for (int r = 0; r < kRowsTogether; ++r) {
        T query[kWidth];
        loadElements<kWidth>(q.at(minimum(firstRow + r, rows - 1) * C + piece * kWidth), query);
        MF_UNROLL
        for (int n = 0; n < kInFlight; ++n) MF_UNROLL
        for (int e = 0; e < kWidth; ++e)
          sums[n][r] += static_cast<A>(query[e]) * static_cast<A>(elements[n][e]);
      }
    }
    MF_UNROLL
    for (int n = 0; n < kInFlight; ++n) MF_UNROLL
    for (int r = 0; r < kRowsTogether; ++r) {
      A sum = sums[n][r];
      for (int mask = lanes / 2; mask > 0; mask /= 2) sum += shuffleXor(sum, mask);
      if (lane == 0 && key + n * step < keyCount && firstRow + r < rows)
        scores[(firstRow + r) * kKeyTile + key + n * step] = sum;
    }
  }
}

// A warp turns one row of scores into weights; a lane has keys 2 lane and 2 lane + 1.
template <typename T, typename A = Accumulate<T>>
MF_DEVICE void decodeWeights(const Decode<T>& pass, int64_t head, int row, int segment,
                             const SharedSpan<A>& scores) {
  const AttentionInput<T>& in = pass.in;
  const int64_t b = head / in.s.H, limit = in.attendCurrent ? in.position(row) : in.position(row) - 1;
  const int64_t start = in.documentStart ? in.documentStart[b * in.s.Tq + row / in.s.K] : 0;
  A logits[2];
  MF_UNROLL
  for (int e = 0; e < 2; ++e) {
    const int64_t key = int64_t{segment} * kKeyTile + 2 * laneId() + e;
    const bool sees = key >= start && key <= limit && key < in.keys() &&
                      (!in.keyMask || in.keyMask[b * in.s.Tk + key] != 0);
    logits[e] = sees ? scores[row * kKeyTile + 2 * laneId() + e] * in.log2Scale : A(-INFINITY);
  }
  A weights[2], measures[2] = {A(1), A(0)};
  if (pass.stickBreaking) {
    const Break<A> right = breakOff(A(1), logits[1]), left = breakOff(right.product, logits[0]);
    A product = left.product;  // of the lanes from this one on
    for (int distance = 1; distance < kWarpSize; distance *= 2) {
      const A other = shuffle(product, (laneId() + distance) % kWarpSize);
      if (laneId() + distance < kWarpSize) product *= other;
    }
    A stick = shuffle(product, (laneId() + 1) % kWarpSize);
    if (laneId() == kWarpSize - 1) stick = A(1);
    weights[1] = right.sigmoid * stick;
    weights[0] = left.sigmoid * right.product * stick;
    measures[0] = product;
  } else {
    A top = Max{}(Max{}(logits[0], logits[1]), A(-1e30f));
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2) top = Max{}(shuffleXor(top, mask), top);
    A sum = A(0);
    for (int e = 0; e < 2; ++e) sum += weights[e] = powerOfTwo(logits[e] - top);
    for (int mask = kWarpSize / 2; mask > 0; mask /= 2) sum += shuffleXor(sum, mask);
    measures[0] = top;
    measures[1] = sum;
  }
  scores[row * kKeyTile + 2 * laneId()] = weights[0];
  scores[row * kKeyTile + 2 * laneId() + 1] = weights[1];
  if (laneId() != 0) return;
  A* to = pass.measures + 2 * (pass.at(head, row) + segment);
  to[0] = measures[0];
  to[1] = measures[1];
}

// sums[row, :] = weights[row] times the values: a thread has some columns of every `groups`-th key, and the
// groups are added up in their order.
template <int kWidth, typename T, typename A>
MF_DEVICE void decodeValues(const Decode<T>& pass, const T* values, int keyCount, int64_t head, int segment,
                            int firstRow, const SharedSpan<A>& weights, const SharedSpan<A>& shares) {
  const AttentionInput<T>& in = pass.in;
  const int C = static_cast<int>(in.s.C), rows = static_cast<int>(in.rows()), pieces = C / kWidth;
  const int columns = powerNotBelow(pieces, kDecodeThreads), groups = kDecodeThreads / columns;
  const int group = threadId() / columns;
  for (int first = 0; first < pieces; first += columns) {
    const int piece = first + threadId() % columns;
    A sums[kRowsTogether][kWidth] = {};
    for (int key = group; piece < pieces && key < keyCount; key += groups * kInFlight) {
      T elements[kInFlight][kWidth];
      MF_UNROLL
      for (int n = 0; n < kInFlight; ++n)
        loadElements<kWidth>(values + minimum(key + n * groups, keyCount - 1) * in.stride() + piece * kWidth,
                             elements[n]);
      MF_UNROLL
      for (int n = 0; n < kInFlight; ++n) {
        if (key + n * groups >= keyCount) continue;
        MF_UNROLL
        for (int r = 0; r < kRowsTogether; ++r) {
          const A weight = weights[minimum(firstRow + r, rows - 1) * kKeyTile + key + n * groups];
          MF_UNROLL
          for (int e = 0; e < kWidth; ++e) sums[r][e] += weight * static_cast<A>(elements[n][e]);
        }
      }
    }
    syncThreads();  // shares may still be read
    MF_UNROLL
    for (int r = 0; r < kRowsTogether; ++r) MF_UNROLL
    for (int e = 0; e < kWidth; ++e) shares[(r * kWidth + e) * kDecodeThreads + threadId()] = sums[r][e];
    syncThreads();
    for (int i = threadId(); i < kRowsTogether * columns * kWidth; i += kDecodeThreads) {
      const int r = i / kWidth / columns, column = i % (columns * kWidth), c = first * kWidth + column;
      if (firstRow + r >= rows || c >= C) continue;
      A sum = A(0);
      for (int g = 0; g < groups; ++g)
        sum += shares[(r * kWidth + column % kWidth) * kDecodeThreads + g * columns + column / kWidth];
      pass.sums[(pass.at(head, firstRow + r) + segment) * C + c] = sum;
    }
  }
}

// Grid: heads, segments. kWidth: of what is read at once, all elements of a vector where heads are aligned.
template <typename T, int kWidth>
MF_KERNEL void decodeKernel(Decode<T> pass) {
  using A = Accumulate<T>;
  const AttentionInput<T>& in = pass.in;
  const int C = static_cast<int>(in.s.C), rows = static_cast<int>(in.rows()), segment = blockIdY();
  const int64_t head = blockId(), b = head / in.s.H, h = head % in.s.H;
  in.checkPosition();
  const int64_t keys = in.keys() - int64_t{segment} * kKeyTile;
  if (keys <= 0) return;
  DynamicShared memory;
  const SharedSpan<T> q = memory.take<T>(rows * C);
  const SharedSpan<A> scores = memory.take<A>(rows * kKeyTile);
  const SharedSpan<A> shares = memory.take<A>(kRowsTogether * kWidth * kDecodeThreads);
  for (int i = threadId(); i < rows * C; i += kDecodeThreads) q[i] = in.q[in.rowOffset(b, h, i / C) + i % C];
  for (int i = threadId(); i < rows * kKeyTile; i += kDecodeThreads) scores[i] = A(0);
  syncThreads();
  const int64_t offset = in.keyOffset(b, h, int64_t{segment} * kKeyTile);
  const int keyCount = static_cast<int>(minimum(int64_t{kKeyTile}, keys));
  for (int row = 0; row < rows; row += kRowsTogether)
    decodeScores<kWidth>(in, in.k + offset, keyCount, q, row, scores);
  syncThreads();
  for (int row = warpId(); row < rows; row += kDecodeWarps) decodeWeights(pass, head, row, segment, scores);
  syncThreads();
  for (int row = 0; row < rows; row += kRowsTogether)
    decodeValues<kWidth>(pass, in.v + offset, keyCount, head, segment, row, scores, shares);
}

// A block per row: the segments' sums, from the right.
template <typename T>
struct CombineSegments {
  using A = Accumulate<T>;
  Decode<T> pass;
  MF_DEVICE void operator()(int64_t index) const {
    const AttentionInput<T>& in = pass.in;
    const int64_t rows = in.rows(), head = index / rows, row = index % rows, b = head / in.s.H,
                  h = head % in.s.H;
    const int64_t segments = ceilDiv(in.keys(), kKeyTile), C = in.s.C;
    const A* measures = pass.measures + 2 * pass.at(head, row);
    const A* sums = pass.sums + pass.at(head, row) * C;
    T* out = pass.out + in.rowOffset(b, h, row);
    A top = A(-1e30f);
    for (int64_t s = 0; !pass.stickBreaking && s < segments; ++s) top = Max{}(measures[2 * s], top);
    forRow(C, [&](int64_t c) {
      A sum = A(0), total = A(0), stick = A(1);
      for (int64_t s = segments - 1; s >= 0; --s) {
        const A factor = pass.stickBreaking ? stick : powerOfTwo(measures[2 * s] - top);
        sum += factor * sums[s * C + c];
        total += factor * measures[2 * s + 1];
        stick *= measures[2 * s];
      }
      if (!pass.stickBreaking) sum = total == A(0) ? A(0) : sum / total;
      if (in.remainder) sum += stick * static_cast<A>(in.v[in.keyOffset(b, h, in.position(row)) + c]);
      out[c] = static_cast<T>(sum);
    });
  }
};

}  // namespace

bool isDecoding(const AttentionArgs& args) {
  const int64_t rows = args.shape.Tq * args.shape.K;
  return !args.rowState && rows <= kMostRows &&
         rows * args.shape.C * static_cast<int64_t>(itemSize(args.q.dtype)) <= kMostQueryBytes;
}

void decodeAttention(StreamHandle stream, const AttentionArgs& args, Fault* fault, const ScratchOf& scratch) {
  const AttentionShape& s = args.shape;
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const int64_t rows = s.Tq * s.K, partials = s.B * s.H * rows * ceilDiv(s.Tk, kKeyTile);
    A* memory = static_cast<A*>(scratch(static_cast<size_t>(partials * (s.C + 2)) * sizeof(A)));
    Decode<T> pass{attentionInput<T>(args, args.v), args.out.as<T>(), memory, memory + partials * s.C,
                   args.kind == AttentionKind::StickBreaking};
    pass.in.remainder = args.remainder;
    takePosition(pass.in, args, fault);
    const auto bytes = [&](int width) {
      return static_cast<size_t>((rows * s.C + 15) * static_cast<int64_t>(sizeof(T))) +
             sizeof(A) * static_cast<size_t>(rows * kKeyTile + kRowsTogether * width * kDecodeThreads) + 32;
    };
    const Dimensions grid{s.B * s.H, ceilDiv(s.Tk, kKeyTile)};
    if (pass.in.aligned)
      launch(decodeKernel<T, kVector<T>>, grid, kDecodeThreads, bytes(kVector<T>), stream, pass);
    else
      launch(decodeKernel<T, 1>, grid, kDecodeThreads, bytes(1), stream, pass);
    forRows(stream, s.B * s.H * rows, s.C, CombineSegments<T>{pass});
  });
}

}  // namespace mf::cuda
