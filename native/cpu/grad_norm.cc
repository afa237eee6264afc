// The norm of all gradients and clipping by it.
#include <cmath>

#include "cpu/tensor_blocks.h"

namespace MF_CPU_NAMESPACE {
namespace {

constexpr int kLanesOfSum = 32;

// In f64, where the square of no f32 overflows; lanes of partial sums, then halved: a fixed order that
// vectorises.
template <typename T>
double sumOfSquares(const T* x, int64_t n) {
  double lanes[kLanesOfSum] = {};
  int64_t i = 0;
  for (; i + kLanesOfSum <= n; i += kLanesOfSum) {
    for (int l = 0; l < kLanesOfSum; ++l) {
      const double value = static_cast<double>(static_cast<Accumulate<T>>(x[i + l]));
      lanes[l] += value * value;
    }
  }
  for (int l = 0; i + l < n; ++l) {
    const double value = static_cast<double>(static_cast<Accumulate<T>>(x[i + l]));
    lanes[l] += value * value;
  }
  for (int half = kLanesOfSum / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return lanes[0];
}

template <typename T>
void scale(T* x, int64_t n, double factor) {
  const auto by = static_cast<Accumulate<T>>(factor);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<T>(static_cast<Accumulate<T>>(x[i]) * by);
}

}  // namespace

void CpuBackend::gradNorm(const GradNormArgs& a) {
  double* partial = a.partial.as<double>();
  forTensorBlocks(a.tensors, [&](int64_t block, size_t t, int64_t begin, int64_t end) {
    dispatchFloat(a.tensors[t].dtype, [&]<typename T>() {
      partial[block] = sumOfSquares(a.tensors[t].as<T>() + begin, end - begin);
    });
  });
  double sum = 0;
  for (int64_t block = 0; block < a.partial.numel(); ++block) sum += partial[block];
  const double norm = std::sqrt(sum);
  bool finite;
  if (a.norm.dtype == DType::f64) {
    *a.norm.as<double>() = norm;
    finite = std::isfinite(norm);
  } else {
    *a.norm.as<float>() = static_cast<float>(norm);
    finite = std::isfinite(static_cast<float>(norm));
  }
  *a.finite.as<int32_t>() = finite ? 1 : 0;
}

void CpuBackend::clip(const ClipArgs& a) {
  const double norm = a.norm.dtype == DType::f64 ? *a.norm.as<double>() : *a.norm.as<float>();
  const double factor = a.maxNorm / (norm + 1e-6);
  if (!std::isfinite(norm) || !(factor < 1)) return;
  forTensorBlocks(a.tensors, [&](int64_t, size_t t, int64_t begin, int64_t end) {
    dispatchFloat(a.tensors[t].dtype,
                  [&]<typename T>() { scale(a.tensors[t].as<T>() + begin, end - begin, factor); });
  });
}

}  // namespace MF_CPU_NAMESPACE
