#pragma once
// Vectors of the widest width of this instruction set (GCC/Clang vector extensions), and elementary functions
// that work on them and on scalars alike; a plain loop over the scalar form is vectorised by the compiler.
#include <cstdint>
#include <cstring>

#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kVectorRegisters = 32;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kVectorRegisters = 16;
#else
constexpr int kVectorBytes = 16;
#if defined(__aarch64__)
constexpr int kVectorRegisters = 32;
#else
constexpr int kVectorRegisters = 16;
#endif
#endif
constexpr int kLanes = kVectorBytes / 4;

typedef float VecF __attribute__((vector_size(kVectorBytes)));
typedef int32_t VecI __attribute__((vector_size(kVectorBytes)));
typedef double VecD __attribute__((vector_size(kVectorBytes)));

template <typename V, typename T>
inline V load(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <typename V, typename T>
inline void store(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}
inline VecF splat(float x) {
  return x - VecF{};
}  // x - 0 is x for every x, so it costs no addition

inline float bitsToFloat(int32_t i) {
  float f;
  std::memcpy(&f, &i, sizeof f);
  return f;
}
inline VecF bitsToFloat(VecI i) {
  return reinterpret_cast<VecF>(i);
}
inline int32_t floatToBits(float f) {
  int32_t i;
  std::memcpy(&i, &f, sizeof i);
  return i;
}
inline VecI floatToBits(VecF f) {
  return reinterpret_cast<VecI>(f);
}

// exp(x) in f32, relative error below 2e-7; 0 below -87.3, saturates at about 3e38 above 88.7. NaN stays NaN
// for scalars and vectors (the clamps compare so that NaN passes).
template <typename F>
inline F expApprox(F x) {
  const F low = F{} - 87.33654f, high = F{} + 88.72283f;
  const F clamped = x < low ? low : (x > high ? high : x);
  // Adding 1.5 * 2^23 rounds to the nearest integer, which then sits in the low mantissa bits.
  const F shifted = clamped * 1.44269504088896341f + 12582912.0f;
  const F n = shifted - 12582912.0f;
  const F r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  F p = F{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // 2^n in two factors: n may be 128.
  const auto k = floatToBits(shifted) - 0x4b400000;
  const auto half = k >> 1;
  p = p * bitsToFloat((half + 127) << 23) * bitsToFloat((k - half + 127) << 23);
  return x < low ? F{} : p;
}

}  // namespace MF_CPU_NAMESPACE
