#pragma once
// Activations and their derivatives, for float, VecF (one body, f32 accuracy) and double (exact std:: forms).
// activation<Kind>(x) is f(x), activationGrad<Kind>(x) is f'(x); a plain loop over the float form is
// vectorised. NaN stays NaN.
#include <cmath>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "cpu/simd.h"

namespace MF_CPU_NAMESPACE {
constexpr bool isActivation(UnaryKind kind) {
  return kind == UnaryKind::Gelu || kind == UnaryKind::GeluNew || kind == UnaryKind::Silu ||
         kind == UnaryKind::Relu;
}

// Calls f.template operator()<Kind>() with an activation as a compile-time constant.
template <typename F>
inline void dispatchActivation(UnaryKind kind, F&& f) {
  switch (kind) {
    case UnaryKind::Gelu:
      return f.template operator()<UnaryKind::Gelu>();
    case UnaryKind::GeluNew:
      return f.template operator()<UnaryKind::GeluNew>();
    case UnaryKind::Silu:
      return f.template operator()<UnaryKind::Silu>();
    default:
      return f.template operator()<UnaryKind::Relu>();
  }
}

constexpr double kInvSqrt2 = 0.70710678118654752440;
constexpr double kInvSqrt2Pi = 0.39894228040143267794;
constexpr double kSqrt2OverPi = 0.79788456080286535588;
constexpr double kGeluCubic = 0.044715;

// P(X <= x) and the density at x of the standard normal distribution. The tail is t * polynomial(t) *
// exp(-x^2 / 2) with t = 1 / (1 + 0.34 |x|): minimax in relative error over |x| < 14, 3e-7 in f32 (the
// exponential's own error of x^2 * 3e-8 comes on top).
template <typename F>
struct Normal {
  F cdf, density;
};
template <typename F>
inline Normal<F> normal(F x) {
  const F z = x < 0.0f ? -x : x;
  const F t = 1.0f / (1.0f + 0.34f * z);
  const F e = expApprox(x * x * -0.5f);
  F p = F{} - 0.02612053044140339f;
  p = p * t + 0.1394997388124466f;
  p = p * t - 0.27313318848609924f;
  p = p * t + 0.20218312740325928f;
  p = p * t - 0.044718723744153976f;
  p = p * t + 0.11535926163196564f;
  p = p * t + 0.11519763618707657f;
  p = p * t + 0.13611219823360443f;
  p = p * t + 0.13562050461769104f;
  const F tail = p * t * e;
  return {x < 0.0f ? tail : 1.0f - tail, e * static_cast<float>(kInvSqrt2Pi)};
}
inline Normal<double> normal(double x) {
  return {0.5 * std::erfc(-x * kInvSqrt2), kInvSqrt2Pi * std::exp(-0.5 * x * x)};
}

// sigmoid(x) and 1 - sigmoid(x), neither by a cancelling difference.
template <typename F>
struct Sigmoid {
  F value, rest;
};
template <typename F>
inline Sigmoid<F> sigmoid(F x) {
  const F low = F{} - 87.0f;  // keeps 1 / (1 + e) out of the denormals, which are slow
  const F e = expApprox(-(x < low ? low : x));
  const F s = 1.0f / (1.0f + e);
  return {s, e * s};
}
inline Sigmoid<double> sigmoid(double x) {
  const double e = std::exp(-std::abs(x)), large = 1 / (1 + e), small = e / (1 + e);
  return x < 0 ? Sigmoid<double>{small, large} : Sigmoid<double>{large, small};
}

#if defined(__AVX512F__)
// The same in base two with this set's own instructions: half as many. 2^f for |f| <= 1/2 within 2e-8; NaN
// passes max and min.
inline Sigmoid<VecF> sigmoid(VecF x) {
  constexpr __mmask16 all = 0xffff;  // the forms without a mask draw false warnings from GCC 12
  const __m512 bounded =
      _mm512_maskz_max_ps(all, _mm512_set1_ps(-126), reinterpret_cast<__m512>(x * -1.44269504088896341f));
  const __m512 power = _mm512_maskz_min_ps(all, _mm512_set1_ps(126), bounded);
  const __m512 n = _mm512_maskz_roundscale_ps(all, power, _MM_FROUND_TO_NEAREST_INT);
  const VecF f = reinterpret_cast<VecF>(power) - reinterpret_cast<VecF>(n);
  VecF p = f * 1.534579785e-4f + 1.339993090e-3f;
  p = p * f + 9.618489072e-3f;
  p = p * f + 5.550328642e-2f;
  p = p * f + 2.402264625e-1f;
  p = p * f + 6.931471825e-1f;
  p = p * f + 1.0f;
  const VecF e = reinterpret_cast<VecF>(_mm512_maskz_scalef_ps(all, reinterpret_cast<__m512>(p), n));
  const VecF sum = e + 1.0f;
  const VecF s = reinterpret_cast<VecF>(_mm512_maskz_rcp14_ps(all, reinterpret_cast<__m512>(sum)));
  const VecF value = s + s * (1.0f - s * sum);
  return {value, e * value};
}
#endif

template <typename F>
struct ScalarOf {
  using type = float;
};
template <>
struct ScalarOf<double> {
  using type = double;
};

// gelu_new(x) = x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3).
template <typename F>
inline Sigmoid<F> geluNewSigmoid(F x) {
  using S = typename ScalarOf<F>::type;
  return sigmoid(x * S(2 * kSqrt2OverPi) * (x * x * S(kGeluCubic) + S(1)));
}
// d(2u)/dx, bounded: sigmoid(2u) (1 - sigmoid(2u)) has vanished beyond |x| = 12.
template <typename F>
inline F geluNewSlope(F x) {
  using S = typename ScalarOf<F>::type;
  const F most = F{} + S(144), square = x * x;
  return (square < most ? square : most) * S(6 * kSqrt2OverPi * kGeluCubic) + S(2 * kSqrt2OverPi);
}

template <UnaryKind Kind, typename F>
inline F activation(F x) {
  static_assert(isActivation(Kind));
  using S = typename ScalarOf<F>::type;
  if constexpr (Kind == UnaryKind::Gelu) return x * normal(x).cdf;
  if constexpr (Kind == UnaryKind::GeluNew) return x * geluNewSigmoid(x).value;
  if constexpr (Kind == UnaryKind::Silu) return x * sigmoid(x).value;
  if constexpr (Kind == UnaryKind::Relu) return x < S(0) ? F{} : x;
}

template <UnaryKind Kind, typename F>
inline F activationGrad(F x) {
  static_assert(isActivation(Kind));
  using S = typename ScalarOf<F>::type;
  if constexpr (Kind == UnaryKind::Gelu) {
    const auto n = normal(x);
    return x * n.density + n.cdf;
  }
  if constexpr (Kind == UnaryKind::GeluNew) {
    const auto s = geluNewSigmoid(x);
    return x * s.value * s.rest * geluNewSlope(x) + s.value;
  }
  if constexpr (Kind == UnaryKind::Silu) {
    const auto s = sigmoid(x);
    return x * s.value * s.rest + s.value;
  }
  if constexpr (Kind == UnaryKind::Relu) return x <= S(0) ? F{} : F{} + S(1);
}

}  // namespace MF_CPU_NAMESPACE
