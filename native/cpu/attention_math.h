#pragma once
// Vectors of f32 or f64 by element type, and the functions that attention weights need. Logits are in units
// of log 2: the packed queries carry log2(e) / sqrt(C).
#include "cpu/simd.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace MF_CPU_NAMESPACE {
template <typename A>
struct VecOf {
  using type = VecF;
};
template <>
struct VecOf<double> {
  using type = VecD;
};
template <typename A>
using Vec = typename VecOf<A>::type;
template <typename A>
constexpr int kLanesOf = kVectorBytes / int(sizeof(A));

// Subtracting zero is an identity that the compiler removes; adding it is not, for -0.
template <typename V, typename A>
inline V broadcast(A x) {
  return x - V{};
}
// b where either is NaN. The compiler does not find vmaxps and vminps itself.
template <typename V>
inline V maximum(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == 4)
    return reinterpret_cast<V>(
        _mm512_maskz_max_ps(0xffff, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#endif
  return a > b ? a : b;
}
template <typename V>
inline V minimum(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (sizeof(a[0]) == 4)
    return reinterpret_cast<V>(
        _mm512_maskz_min_ps(0xffff, reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#endif
  return a < b ? a : b;
}

// p (1 - sigmoid) with sigmoid = odds rest, rest = 1 / (1 + odds): near 1 the difference keeps the bits
// that 1 + odds drops, and far from 1 the quotient keeps those that sigmoid drops.
template <typename V>
inline V breakOff(V p, V odds, V sigmoid, V rest) {
  return odds < 1 ? p - p * sigmoid : p * rest;
}

constexpr double kLog2E = 1.4426950408889634;
constexpr double kLn2 = 0.6931471805599453;

// 2^x for x within [-126, 126], relative error 1e-7. Adding 1.5 * 2^23 leaves the nearest integer in the
// low bits.
inline VecF exp2Bounded(VecF x) {
  const VecF shifted = x + 12582912.0f;
  const VecF r = x - (shifted - 12582912.0f);
  VecF p = VecF{} + 1.535336188319500e-4f;
  p = p * r + 1.339887440266574e-3f;
  p = p * r + 9.618437357674640e-3f;
  p = p * r + 5.550332471162809e-2f;
  p = p * r + 2.402264791363012e-1f;
  p = p * r + 6.931472028550421e-1f;
  p = p * r + 1.0f;
  return bitsToFloat(floatToBits(p) + (floatToBits(shifted) << 23));
}

typedef int64_t VecL __attribute__((vector_size(kVectorBytes)));

struct Exp2Series {
  double c[14];
  constexpr Exp2Series() : c{} {
    c[0] = 1;
    for (int i = 1; i < 14; ++i) c[i] = c[i - 1] * kLn2 / i;
  }
};

// 2^x for x within [-1022, 1022], relative error 3e-16.
inline VecD exp2Bounded(VecD x) {
  constexpr Exp2Series series;
  const VecD shifted = x + 6755399441055744.0;
  const VecD r = x - (shifted - 6755399441055744.0);
  VecD p = VecD{} + series.c[13];
  for (int i = 12; i >= 0; --i) p = p * r + series.c[i];
  return reinterpret_cast<VecD>(reinterpret_cast<VecL>(p) + (reinterpret_cast<VecL>(shifted) << 52));
}

inline constexpr float exp2Bound(VecF) {
  return 100;
}
inline constexpr double exp2Bound(VecD) {
  return 1000;
}

// 1 / x, relative error 1.3e-7.
inline VecF reciprocal(VecF x) {
#if defined(__AVX512F__)
  // The masked form: GCC 12 warns of the plain one's undefined operand.
  const VecF r = reinterpret_cast<VecF>(_mm512_maskz_rcp14_ps(0xffff, reinterpret_cast<__m512>(x)));
  return r + r * (1 - x * r);
#else
  return 1 / x;
#endif
}
inline VecD reciprocal(VecD x) {
  return 1 / x;
}

// 2^x, saturating far outside what weights need; NaN stays NaN.
template <typename V>
inline V exp2Saturating(V x) {
  const V high = V{} + exp2Bound(x), low = V{} - exp2Bound(x);
  return exp2Bounded(maximum(low, minimum(high, x)));
}

}  // namespace MF_CPU_NAMESPACE
