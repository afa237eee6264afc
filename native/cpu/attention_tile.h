#pragma once
// What both kinds of attention share on the CPU: a row block (query rows of one head, in the lanes of
// vectors) against tiles of keys. A tile is stored [keys][W]: key-major, so that a key is broadcast against W
// rows; then the scores, the weighted sum of values and the gradients are one micro-kernel, and a head width
// needs no padding.
//
// Rows: the K query groups of a position share its keys, so row r = i * K + k of a head, at the stride H * C.
#include "core/backend.h"
#include "core/pool.h"
#include "cpu/attention_pack.h"
#include "cpu/simd.h"

namespace MF_CPU_NAMESPACE {
// out[m, 0:n] (+)= sum_k x(m, k) p[k, 0:n] with n = NV vectors and rows of p and out kWidth apart. x(m, k) is
// x[m * ldx + k] (kRowsOfX) or x[k * ldx + m]. Each element of out is one chain in rising k; depth is at
// least 1.
template <typename A, int64_t kWidth, int MR, int NV, bool kRowsOfX, bool kAccumulate>
[[gnu::noinline]] void microKernel(int64_t depth, const A* x, int64_t ldx, const A* p, A* out) {
  using V = Vec<A>;
  constexpr int L = kLanesOf<A>;
  V acc[MR][NV];
#pragma GCC unroll 12
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < NV; ++n) acc[m][n] = kAccumulate ? load<V>(out + m * kWidth + n * L) : V{};
  int64_t k = 0;
  do {
    V row[NV];
#pragma GCC unroll 4
    for (int n = 0; n < NV; ++n) row[n] = load<V>(p + n * L);
#pragma GCC unroll 12
    for (int m = 0; m < MR; ++m) {
      const V value = broadcast<V>(kRowsOfX ? x[m * ldx] : x[m]);
#pragma GCC unroll 4
      for (int n = 0; n < NV; ++n) acc[m][n] += value * row[n];
    }
    x += kRowsOfX ? 1 : ldx;
    p += kWidth;
  } while (++k < depth);
#pragma GCC unroll 12
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < NV; ++n) store(out + m * kWidth + n * L, acc[m][n]);
}

template <typename A, int64_t kWidth, int MR, int NV, bool kRowsOfX, bool kAccumulate>
inline void callMicroKernel(int64_t rows, int64_t depth, const A* x, int64_t ldx, const A* p, A* out) {
  if (rows == MR)
    microKernel<A, kWidth, MR, NV, kRowsOfX, kAccumulate>(depth, x, ldx, p, out);
  else if constexpr (MR > 1)
    callMicroKernel<A, kWidth, MR - 1, NV, kRowsOfX, kAccumulate>(rows, depth, x, ldx, p, out);
}

template <typename A, int64_t kWidth, int NV, bool kRowsOfX, bool kAccumulate>
inline void multiplyStrip(int64_t rows, int64_t depth, const A* x, int64_t ldx, const A* p, A* out) {
  constexpr int kRows = microRows(NV);
  int64_t groups = (rows + kRows - 1) / kRows;
  for (int64_t m = 0; groups > 0; --groups) {
    const int64_t size = (rows - m + groups - 1) / groups;
    callMicroKernel<A, kWidth, kRows, NV, kRowsOfX, kAccumulate>(size, depth, x + (kRowsOfX ? m * ldx : m),
                                                                 ldx, p, out + m * kWidth);
    m += size;
  }
}

// out [rows, W] (+)= x [rows, depth] p [depth, W].
template <typename A, int64_t W, bool kRowsOfX, bool kAccumulate>
void multiply(int64_t rows, int64_t depth, const A* x, int64_t ldx, const A* p, A* out) {
  constexpr int NV = W / kLanesOf<A> < kStripVectors ? W / kLanesOf<A> : kStripVectors;
  for (int64_t n = 0; n < W; n += NV * kLanesOf<A>)
    multiplyStrip<A, W, NV, kRowsOfX, kAccumulate>(rows, depth, x, ldx, p + n, out + n);
}

// tile [keys, W] = rows of x [keys, C] times packed [C, W].
template <typename A, int64_t W, typename T>
void dotTile(int64_t keys, int64_t C, const T* x, int64_t stride, const A* packed, A* tile) {
  for (int64_t c = 0; c < C; c += kSlice) {
    const int64_t depth = C - c < kSlice ? C - c : kSlice;
    const KeySlice<A, T> slice(x + c, stride, keys, depth);
    if (c == 0)
      multiply<A, W, true, false>(keys, depth, slice.data(), slice.stride(), packed, tile);
    else
      multiply<A, W, true, true>(keys, depth, slice.data(), slice.stride(), packed + c * W, tile);
  }
}

// sums [C, W] += x [keys, C]^T tile [keys, W], for channels [from, to).
template <typename A, int64_t W, typename T>
void addWeighted(int64_t keys, int64_t from, int64_t to, const T* x, int64_t stride, const A* tile, A* sums) {
  for (int64_t c = from; c < to; c += kSlice) {
    const int64_t channels = to - c < kSlice ? to - c : kSlice;
    const KeySlice<A, T> slice(x + c, stride, keys, channels);
    multiply<A, W, false, true>(channels, keys, slice.data(), slice.stride(), tile, sums + c * W);
  }
}

template <typename A, int NV>
inline void addOuterPanel(int vectors, int64_t keys, int64_t W, const A* tile, const A* panel, A* out) {
  if (vectors == NV)
    multiplyStrip<A, kPanel<A>, NV, true, true>(keys, W, tile, W, panel, out);
  else if constexpr (NV > 1)
    addOuterPanel<A, NV - 1>(vectors, keys, W, tile, panel, out);
}

// out [panels][keyStride, panel] += tile [keys, W] times panels [panels][W, panel] (the rows of q or dout).
template <typename A, int64_t W>
void addOuter(int64_t keys, int64_t C, const A* tile, const A* panels, A* out, int64_t keyStride) {
  constexpr int64_t L = kLanesOf<A>;
  for (int64_t c = 0; c < C; c += kPanel<A>) {
    const int64_t width = C - c < kPanel<A> ? C - c : kPanel<A>;
    addOuterPanel<A, kStripVectors>(static_cast<int>((width + L - 1) / L), keys, W, tile, panels + c * W,
                                    out + c * keyStride);
  }
}

// Parts of this thread's scratch, each 64-byte aligned.
template <typename A>
class Scratch {
 public:
  explicit Scratch(int64_t elements)
      : next_(static_cast<A*>(threadScratch(static_cast<size_t>(elements) * sizeof(A)))) {}
  static constexpr int64_t rounded(int64_t elements) {
    constexpr int64_t line = 64 / int64_t(sizeof(A));
    return (elements + line - 1) / line * line;
  }
  A* take(int64_t elements) {
    A* part = next_;
    next_ += rounded(elements);
    return part;
  }

 private:
  A* next_;
};

// Which keys a sequence's mask leaves: those outside [first, last] need no visit.
struct KeyRange {
  int64_t first, last;
};
inline KeyRange usedKeys(const int32_t* keyMask, int64_t Tk) {
  if (!keyMask) return {0, Tk - 1};
  KeyRange range{0, Tk - 1};
  while (range.first < Tk && !keyMask[range.first]) ++range.first;
  while (range.last >= range.first && !keyMask[range.last]) --range.last;
  return range;
}

template <typename T>
struct AttentionInput {
  AttentionShape shape;
  const T *q, *k, *v;
  const int32_t *keyMask, *documentStart;
  bool attendCurrent, remainder;
  int64_t maskWidth;  // Tk or more

  const int32_t* maskOf(int64_t b) const { return keyMask ? keyMask + b * maskWidth : nullptr; }
  int64_t rows() const { return shape.Tq * shape.K; }
  int64_t stride() const { return shape.H * shape.C; }
  // Of q, out, dout and dq; of rowState and live when divided by C.
  int64_t rowOffset(int64_t b, int64_t h, int64_t row) const {
    return ((b * rows() + row) * shape.H + h) * shape.C;
  }
  int64_t keyOffset(int64_t b, int64_t h, int64_t key) const {
    return ((b * shape.keyCapacity + key) * shape.H + h) * shape.C;
  }
  int64_t position(int64_t row) const { return row / shape.K + shape.Tk - shape.Tq; }
};

// The rows [first, first + count) of one head and the keys each may see: start <= j <= limit and not
// masked. Positions are held as A, exact far beyond any length.
template <typename A, int64_t W>
struct RowBlock {
  int64_t b, h, first, count;
  int64_t minLimit, maxLimit, minStart, maxStart;
  const int32_t* keyMask;  // of this sequence, or null
  alignas(64) A limit[W];
  alignas(64) A start[W];

  template <typename T>
  RowBlock(const AttentionInput<T>& in, const KeyRange& used, int64_t b, int64_t h, int64_t block)
      : b(b), h(h), first(block * W), keyMask(in.maskOf(b)) {
    count = in.rows() - first < W ? in.rows() - first : W;
    minLimit = minStart = in.shape.Tk;
    maxLimit = maxStart = -1;
    for (int64_t r = 0; r < W; ++r) {
      int64_t last = -1, from = 0;  // from >= 0: no row sees key -1
      if (r < count) {
        const int64_t position = in.position(first + r);
        last = in.attendCurrent ? position : position - 1;
        if (in.documentStart) from = in.documentStart[b * in.shape.Tq + (first + r) / in.shape.K];
        if (last > used.last) last = used.last;
        if (from < used.first) from = used.first;
        if (last < minLimit) minLimit = last;
        if (last > maxLimit) maxLimit = last;
        if (from < minStart) minStart = from;
        if (from > maxStart) maxStart = from;
      }
      limit[r] = A(last);
      start[r] = A(from);
    }
  }

  int64_t firstTile() const { return minStart / kKeyTile; }
  int64_t lastTile() const {
    return maxLimit < 0 ? -1 : maxLimit / kKeyTile;
  }  // below firstTile(): nothing to see
  int64_t keysIn(int64_t tile) const {
    const int64_t left = maxLimit + 1 - tile * kKeyTile;
    return left < kKeyTile ? left : kKeyTile;
  }
  // Whether some row may not see some key of the tile.
  bool masked(int64_t tile, int64_t keys) const {
    const int64_t j = tile * kKeyTile;
    if (j + keys - 1 > minLimit || j < maxStart) return true;
    if (keyMask)
      for (int64_t i = 0; i < keys; ++i)
        if (!keyMask[j + i]) return true;
    return false;
  }
  // The key's position in all lanes; -1, which no row sees, where the mask leaves it out.
  Vec<A> visiblePosition(int64_t key) const {
    return broadcast<Vec<A>>(keyMask && !keyMask[key] ? A(-1) : A(key));
  }
  // Lanes (all ones or zero) of the rows r .. r + lanes that may see the key at this position.
  auto sees(Vec<A> position, int64_t r) const {
    return (position <= load<Vec<A>>(limit + r)) & (position >= load<Vec<A>>(start + r));
  }
};

// Runs body(task) in parallel when the work, in multiply-adds, is worth a fork.
template <typename Body>
void forTasks(int64_t tasks, int64_t work, Body&& body) {
  if (work < 1 << 17) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
  } else {
    Pool::instance().parallelFor(tasks, body);
  }
}

}  // namespace MF_CPU_NAMESPACE
