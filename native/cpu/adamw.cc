// AdamW (Loshchilov and Hutter 2019) over all tensors in one parallel loop, with PyTorch's order of
// operations.
#include <cmath>

#include "cpu/tensor_blocks.h"

namespace MF_CPU_NAMESPACE {
namespace {

struct Factors {
  double keep;          // 1 - lr * weightDecay
  double rate;          // lr / (1 - beta1^step)
  double inverseRoot2;  // 1 / sqrt(1 - beta2^step)
};

// w: the parameter, or its f32 master, of which `rounded` then receives the bf16 copy.
template <typename Acc, typename G>
void update(const AdamWArgs& a, const Factors& f, Acc* __restrict w, bf16* __restrict rounded,
            const G* __restrict gradient, Acc* __restrict m, Acc* __restrict v, int64_t n) {
  const Acc beta1 = static_cast<Acc>(a.beta1), rest1 = static_cast<Acc>(1 - a.beta1);
  const Acc beta2 = static_cast<Acc>(a.beta2), rest2 = static_cast<Acc>(1 - a.beta2);
  const Acc keep = static_cast<Acc>(f.keep), rate = static_cast<Acc>(f.rate);
  const Acc inverseRoot2 = static_cast<Acc>(f.inverseRoot2), eps = static_cast<Acc>(a.eps);
  for (int64_t i = 0; i < n; ++i) {
    const Acc g = static_cast<Acc>(gradient[i]);
    m[i] = beta1 * m[i] + rest1 * g;
    v[i] = beta2 * v[i] + rest2 * (g * g);
    w[i] = keep * w[i] - rate * (m[i] / (std::sqrt(v[i]) * inverseRoot2 + eps));
  }
  if (rounded)
    for (int64_t i = 0; i < n; ++i) rounded[i] = bf16(static_cast<float>(w[i]));
}

template <typename Acc, typename G>
void updateBlock(const AdamWArgs& a, const Factors& f, size_t t, int64_t begin, int64_t n) {
  const bool hasMaster = a.parameters[t].dtype == DType::bf16;
  update<Acc, G>(a, f, (hasMaster ? a.master : a.parameters)[t].template as<Acc>() + begin,
                 hasMaster ? a.parameters[t].as<bf16>() + begin : nullptr, a.gradients[t].as<G>() + begin,
                 a.m[t].template as<Acc>() + begin, a.v[t].template as<Acc>() + begin, n);
}

}  // namespace

void CpuBackend::adamW(const AdamWArgs& a) {
  if (a.finite && *a.finite.as<int32_t>() == 0) return;
  for (const View& step : a.step) ++*step.as<int32_t>();
  forTensorBlocks(a.parameters, [&](int64_t, size_t t, int64_t begin, int64_t end) {
    const double step = *a.step[t].as<int32_t>();
    const Factors factors{1 - a.lr * a.weightDecay, a.lr / (1 - std::pow(a.beta1, step)),
                          1 / std::sqrt(1 - std::pow(a.beta2, step))};
    dispatchFloat(a.gradients[t].dtype,
                  [&]<typename G>() { updateBlock<Accumulate<G>, G>(a, factors, t, begin, end - begin); });
  });
}

}  // namespace MF_CPU_NAMESPACE
