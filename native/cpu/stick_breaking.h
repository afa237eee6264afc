#pragma once
#include "cpu/attention_math.h"

namespace MF_CPU_NAMESPACE {
// A row is frozen once its stick is below this: |dy| <= eps max|v|, and for the gradients sum_j |d dl_ij|
// <= eps (2 + ln 1/eps) max|dout_i . v|, sum_j ||d dv_j|| <= eps sum_i ||dout_i||.
template <typename T>
constexpr Accumulate<T> kSpentStick = 2e-9f;
template <>
inline constexpr double kSpentStick<double> = 1e-26;
template <>
inline constexpr float kSpentStick<bf16> = 1e-4f;

// Floor of the product over a tile: far below a spent stick, far above denormals.
template <typename A>
constexpr A kLeastProduct = A(1e-25f);
template <>
inline constexpr double kLeastProduct<double> = 1e-100;

void stickBreaking(const AttentionArgs& args);
void stickBreakingBackward(const AttentionBackwardArgs& args);
void softmaxAttention(const AttentionArgs& args);
void softmaxAttentionBackward(const AttentionBackwardArgs& args);

}  // namespace MF_CPU_NAMESPACE
