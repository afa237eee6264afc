// AdamW (Loshchilov and Hutter 2019) over all tensors in a few launches, with PyTorch's order of operations.
#include "cuda/cuda_backend.h"
#include "cuda/tensor_blocks.cuh"

namespace mf::cuda {
namespace {

// w: the parameter, or its f32 master, of which `rounded` then receives the bf16 copy.
template <typename A, typename G>
struct State {
  A* w;
  bf16* rounded;
  const G* gradient;
  A *m, *v;
  const int32_t* step;
};

struct Rates {
  double lr, beta1, beta2, eps, weightDecay;
  const int32_t* finite;
};

struct RaiseSteps {
  const int32_t* finite;
  MF_DEVICE void operator()(int32_t* step, int64_t, int64_t, int64_t) const {
    if (threadId() == 0 && (!finite || *finite != 0)) ++*step;
  }
};

template <typename A, typename G>
struct Update {
  Rates rates;
  MF_DEVICE void operator()(const State<A, G>& s, int64_t begin, int64_t end, int64_t) const {
    if (rates.finite && *rates.finite == 0) return;
    const double step = *s.step;
    const A keep = static_cast<A>(1 - rates.lr * rates.weightDecay);
    const A rate = static_cast<A>(rates.lr / (1 - std::pow(rates.beta1, step)));
    const A inverseRoot2 = static_cast<A>(1 / std::sqrt(1 - std::pow(rates.beta2, step)));
    const A beta1 = static_cast<A>(rates.beta1), rest1 = static_cast<A>(1 - rates.beta1);
    const A beta2 = static_cast<A>(rates.beta2), rest2 = static_cast<A>(1 - rates.beta2);
    const A eps = static_cast<A>(rates.eps);
    for (int64_t i = begin + threadId(); i < end; i += blockThreads()) {
      const A g = static_cast<A>(s.gradient[i]);
      const A m = beta1 * s.m[i] + rest1 * g, v = beta2 * s.v[i] + rest2 * (g * g);
      const A w = keep * s.w[i] - rate * (m / (std::sqrt(v) * inverseRoot2 + eps));
      s.m[i] = m;
      s.v[i] = v;
      s.w[i] = w;
      if (s.rounded) s.rounded[i] = bf16(w);
    }
  }
};

}  // namespace

void CudaBackend::adamW(const AdamWArgs& args) {
  const Rates rates{args.lr, args.beta1, args.beta2, args.eps, args.weightDecay, args.finite.as<int32_t>()};
  forTensorBlocks<int32_t*>(
      stream_, args.step, [](size_t) { return true; }, [&](size_t i) { return args.step[i].as<int32_t>(); },
      RaiseSteps{rates.finite});
  for (DType dtype : {DType::f64, DType::f32, DType::bf16})
    dispatchFloat(dtype, [&]<typename G>() {
      using A = Accumulate<G>;
      forTensorBlocks<State<A, G>>(
          stream_, args.parameters, [&](size_t i) { return args.gradients[i].dtype == dtype; },
          [&](size_t i) {
            const bool hasMaster = args.parameters[i].dtype == DType::bf16;
            return State<A, G>{(hasMaster ? args.master : args.parameters)[i].template as<A>(),
                               hasMaster ? args.parameters[i].as<bf16>() : nullptr,
                               args.gradients[i].as<G>(),
                               args.m[i].template as<A>(),
                               args.v[i].template as<A>(),
                               args.step[i].as<int32_t>()};
          },
          Update<A, G>{rates});
    });
}

}  // namespace mf::cuda
