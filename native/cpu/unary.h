#pragma once
// Every unary function and its derivative, for float and double. A plain loop over the float form is
// vectorised (f64 calls the standard library). NaN stays NaN.
#include "cpu/activation.h"

namespace MF_CPU_NAMESPACE {

// log(x) in f32, relative error below 2e-7 (Cephes); subnormals included.
inline float logApprox(float x) {
  const bool small = x < 1.17549435e-38f;
  const int32_t bits = floatToBits(small ? x * 8388608.0f : x);
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)).
  const int32_t shifted =
      static_cast<int32_t>(static_cast<uint32_t>(bits) - 0x3f3504f3u);  // wraps where x < 0
  const float e = static_cast<float>((shifted >> 23) - (small ? 23 : 0));
  const float m = bitsToFloat((shifted & 0x007fffff) + 0x3f3504f3) - 1.0f;
  float p = 7.0376836292e-2f;
  p = p * m - 1.1514610310e-1f;
  p = p * m + 1.1676998740e-1f;
  p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f;
  p = p * m - 1.6668057665e-1f;
  p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f;
  p = p * m + 3.3333331174e-1f;
  const float square = m * m;
  const float tail = p * m * square - 2.12194440e-4f * e - 0.5f * square;
  const float value = m + tail + 0.693359375f * e;
  const float infinity = __builtin_inff();
  return x > 0.0f ? (x < infinity ? value : infinity) : (x == 0.0f ? -infinity : __builtin_nanf(""));
}

// log(1 + x) for x in [0, 1], exact to rounding for small x too: the rounding of 1 + x cancels out.
inline float log1pApprox(float x) {
  const float sum = 1.0f + x;
  return sum == 1.0f ? x : logApprox(sum) * (x / (sum - 1.0f));
}

inline float tanhApprox(float x) {
  const float z = x < 0.0f ? -x : x, square = x * x;
  float p = -5.70498872745e-3f;
  p = p * square + 2.06390887954e-2f;
  p = p * square - 5.37397155531e-2f;
  p = p * square + 1.33314422036e-1f;
  p = p * square - 3.33332819422e-1f;
  const float large = 1.0f - 2.0f / (expApprox(2.0f * z) + 1.0f);
  return z < 0.625f ? p * square * x + x : (x < 0.0f ? -large : large);
}

// expOf is for arguments known to be small: it saturates where exp overflows.
inline float expOf(float x) {
  return expApprox(x);
}
inline double expOf(double x) {
  return std::exp(x);
}
inline float exponential(float x) {
  return x > 88.72283f ? __builtin_inff() : expApprox(x);
}
inline double exponential(double x) {
  return std::exp(x);
}
inline float hyperbolicTangent(float x) {
  return tanhApprox(x);
}
inline double hyperbolicTangent(double x) {
  return std::tanh(x);
}
inline float logarithm(float x) {
  return logApprox(x);
}
inline double logarithm(double x) {
  return std::log(x);
}
inline float squareRoot(float x) {
  return __builtin_sqrtf(x);
}
inline double squareRoot(double x) {
  return __builtin_sqrt(x);
}
inline float softplus(float x) {
  return (x > 0.0f ? x : 0.0f) + log1pApprox(expApprox(x < 0.0f ? x : -x));
}
inline double softplus(double x) {
  return (x > 0 ? x : 0.0) + std::log1p(std::exp(x < 0 ? x : -x));
}

template <UnaryKind Kind, typename A>
inline A unaryValue(A x) {
  if constexpr (isActivation(Kind)) return activation<Kind>(x);
  if constexpr (Kind == UnaryKind::Sigmoid) return sigmoid(x).value;
  if constexpr (Kind == UnaryKind::Tanh) return hyperbolicTangent(x);
  if constexpr (Kind == UnaryKind::Exp) return exponential(x);
  if constexpr (Kind == UnaryKind::Log) return logarithm(x);
  if constexpr (Kind == UnaryKind::Sqrt) return squareRoot(x);
  if constexpr (Kind == UnaryKind::Square) return x * x;
  if constexpr (Kind == UnaryKind::Neg) return -x;
  if constexpr (Kind == UnaryKind::Abs) return x < A(0) ? -x : x + A(0);  // -0 gives 0
  if constexpr (Kind == UnaryKind::Softplus) return softplus(x);
}

template <UnaryKind Kind, typename A>
inline A unaryGrad(A x) {
  if constexpr (isActivation(Kind)) return activationGrad<Kind>(x);
  if constexpr (Kind == UnaryKind::Sigmoid) {
    const auto s = sigmoid(x);
    return s.value * s.rest;
  }
  if constexpr (Kind == UnaryKind::Tanh) {  // 1 - tanh^2, without its cancellation
    const auto s = sigmoid(A(2) * x);
    return A(4) * s.value * s.rest;
  }
  if constexpr (Kind == UnaryKind::Exp) return exponential(x);
  if constexpr (Kind == UnaryKind::Log) return A(1) / x;
  if constexpr (Kind == UnaryKind::Sqrt) return A(0.5) / squareRoot(x);
  if constexpr (Kind == UnaryKind::Square) return A(2) * x;
  if constexpr (Kind == UnaryKind::Neg) return A(-1);
  if constexpr (Kind == UnaryKind::Abs) return x > A(0) ? A(1) : (x < A(0) ? A(-1) : x);
  if constexpr (Kind == UnaryKind::Softplus) return sigmoid(x).value;
}

// Calls f.template operator()<Kind>() with the kind as a compile-time constant.
template <typename F>
inline void dispatchUnary(UnaryKind kind, F&& f) {
  switch (kind) {
    case UnaryKind::Sigmoid:
      return f.template operator()<UnaryKind::Sigmoid>();
    case UnaryKind::Tanh:
      return f.template operator()<UnaryKind::Tanh>();
    case UnaryKind::Exp:
      return f.template operator()<UnaryKind::Exp>();
    case UnaryKind::Log:
      return f.template operator()<UnaryKind::Log>();
    case UnaryKind::Sqrt:
      return f.template operator()<UnaryKind::Sqrt>();
    case UnaryKind::Square:
      return f.template operator()<UnaryKind::Square>();
    case UnaryKind::Neg:
      return f.template operator()<UnaryKind::Neg>();
    case UnaryKind::Abs:
      return f.template operator()<UnaryKind::Abs>();
    case UnaryKind::Softplus:
      return f.template operator()<UnaryKind::Softplus>();
    default:
      return dispatchActivation(kind, f);
  }
}

}  // namespace MF_CPU_NAMESPACE
