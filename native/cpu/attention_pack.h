#pragma once
// The layouts of attention's operands: rows transposed into lanes, rows in panels of channels, converted key
// tiles.
#include <utility>

#include "cpu/attention_math.h"

namespace MF_CPU_NAMESPACE {

constexpr int64_t kKeyTile = 48;     // keys per tile: a multiple of the micro-kernel's rows
constexpr int64_t kWideRows = 64;    // rows per block
constexpr int64_t kNarrowRows = 16;  // rows per block when a head has no more: decoding

// The widest column strip of the micro-kernel in vectors, and its rows for a strip of n vectors.
constexpr int kStripVectors = kVectorRegisters >= 32 ? 4 : 2;
constexpr int microRows(int vectors) {
  if (vectors == 1) return 12;
  if (vectors == 2) return kVectorRegisters >= 32 ? 12 : 6;
  return vectors == 3 ? 8 : 6;
}

template <typename A>
constexpr int64_t kPanel = kStripVectors* kLanesOf<A>;  // columns of a panel of channels

template <typename A>
inline int64_t paddedWidth(int64_t C) {
  return (C + kPanel<A> - 1) / kPanel<A> * kPanel<A>;
}

// One step of a transposition: the 2x2 exchange of lane blocks of size S between vectors a and b, S apart.
template <int S, typename V, int... I>
inline void exchange(V& a, V& b, std::integer_sequence<int, I...>) {
  constexpr int L = sizeof...(I);
  const V low = __builtin_shufflevector(a, b, ((I & S) ? L + I - S : I)...);
  const V high = __builtin_shufflevector(a, b, ((I & S) ? L + I : I + S)...);
  a = low;
  b = high;
}

template <int S, int L, typename V>
inline void transposeStep(V (&rows)[L]) {
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i)
    if (!(i & S)) exchange<S>(rows[i], rows[i + S], std::make_integer_sequence<int, L>());
}

// A square of lanes x lanes elements.
template <int L, typename V>
inline void transpose(V (&rows)[L]) {
  if constexpr (L > 8) transposeStep<8>(rows);
  if constexpr (L > 4) transposeStep<4>(rows);
  if constexpr (L > 2) transposeStep<2>(rows);
  transposeStep<1>(rows);
}

// A vector of A from T in memory.
template <typename V, typename T>
inline V widen(const T* x) {
  return load<V>(x);
}
template <>
inline VecF widen<VecF, bf16>(const bf16* x) {
  typedef uint16_t Half __attribute__((vector_size(kVectorBytes / 2)));
  return bitsToFloat(__builtin_convertvector(load<Half>(x), VecI) << 16);
}

// The reverse: T in memory from a vector.
template <typename T, typename V>
inline void narrow(T* out, V x) {
  if constexpr (sizeof(T) == sizeof(x[0])) {
    store(out, x);
  } else {
    for (int i = 0; i < kLanes; ++i) out[i] = T(x[i]);
  }
}

template <typename A, typename T>
inline void convertRow(const T* x, int64_t n, A* out) {
  using V = Vec<A>;
  int64_t i = 0;
  for (; i + kLanesOf<A> <= n; i += kLanesOf<A>) store(out + i, widen<V>(x + i));
  for (; i < n; ++i) out[i] = A(x[i]);
}

// Rows of x at `stride` -> packed [C, W], times `scale`; rows from `count` on are zeros.
template <typename A, int64_t W, typename T>
void packTransposed(const T* x, int64_t stride, int64_t count, int64_t C, A scale, A* packed) {
  using V = Vec<A>;
  constexpr int L = kLanesOf<A>;
  for (int64_t r = 0; r < W; r += L) {
    const int64_t filled = count - r < 0 ? 0 : (count - r < L ? count - r : L);
    int64_t c = 0;
    for (; c + L <= C; c += L) {
      V square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = i < filled ? widen<V>(x + (r + i) * stride + c) * scale : V{};
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) store(packed + (c + i) * W + r, square[i]);
    }
    for (; c < C; ++c)
      for (int64_t i = 0; i < L; ++i)
        packed[c * W + r + i] = i < filled ? A(x[(r + i) * stride + c]) * scale : A(0);
  }
}

// sums [C, W], times factor [W], -> rows of out at `stride`.
template <typename A, int64_t W, typename T>
void unpackTransposed(const A* sums, const A* factor, int64_t count, int64_t C, T* out, int64_t stride) {
  using V = Vec<A>;
  constexpr int L = kLanesOf<A>;
  for (int64_t r = 0; r < count; r += L) {
    const int64_t filled = count - r < L ? count - r : L;
    const V factors = load<V>(factor + r);
    int64_t c = 0;
    for (; c + L <= C; c += L) {
      V square[L];
#pragma GCC unroll 16
      for (int i = 0; i < L; ++i) square[i] = load<V>(sums + (c + i) * W + r) * factors;
      transpose(square);
      for (int64_t i = 0; i < filled; ++i) narrow(out + (r + i) * stride + c, square[i]);
    }
    for (; c < C; ++c)
      for (int64_t i = 0; i < filled; ++i) out[(r + i) * stride + c] = T(sums[c * W + r + i] * factor[r + i]);
  }
}

// Rows of x at `stride` -> panels [ceil(C / panel)][W, panel], zeros in the padding.
template <typename A, int64_t W, typename T>
void packPanels(const T* x, int64_t stride, int64_t count, int64_t C, A* panels) {
  for (int64_t c0 = 0; c0 < C; c0 += kPanel<A>) {
    const int64_t width = C - c0 < kPanel<A> ? C - c0 : kPanel<A>;
    for (int64_t r = 0; r < W; ++r) {
      A* row = panels + c0 * W + r * kPanel<A>;
      const int64_t filled = r < count ? width : 0;
      if (filled > 0) convertRow(x + r * stride + c0, filled, row);
      for (int64_t c = filled; c < kPanel<A>; ++c) row[c] = 0;
    }
  }
}

// Channels [c, c + kSlice) of a tile of keys or values, as the micro-kernel reads them: in place, or
// converted.
constexpr int64_t kSlice =
    96;  // a multiple of the micro-kernel's rows; keeps its packed operand in the L1 cache

template <typename A, typename T>
class KeySlice {
 public:
  KeySlice(const T* x, int64_t stride, int64_t keys, int64_t channels) {
    for (int64_t j = 0; j < keys; ++j) convertRow(x + j * stride, channels, buffer_ + j * kSlice);
  }
  const A* data() const { return buffer_; }
  int64_t stride() const { return kSlice; }

 private:
  alignas(64) A buffer_[kKeyTile * kSlice];
};
template <typename A>
class KeySlice<A, A> {
 public:
  KeySlice(const A* x, int64_t stride, int64_t, int64_t) : data_(x), stride_(stride) {}
  const A* data() const { return data_; }
  int64_t stride() const { return stride_; }

 private:
  const A* data_;
  int64_t stride_;
};

}  // namespace MF_CPU_NAMESPACE
