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

constexpr int kParts = 8;  // of a tensor's block, a block of threads each

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
    MF_SHARED(double, corrections, 2);
    if (threadId() == 0) {
      const double step = *s.step;
      corrections[0] = rates.lr / (1 - std::pow(rates.beta1, step));
      corrections[1] = 1 / std::sqrt(1 - std::pow(rates.beta2, step));
    }
    syncThreads();
    const A keep = static_cast<A>(1 - rates.lr * rates.weightDecay);
    const A rate = static_cast<A>(corrections[0]), inverseRoot2 = static_cast<A>(corrections[1]);
    const A beta1 = static_cast<A>(rates.beta1), rest1 = static_cast<A>(1 - rates.beta1);
    const A beta2 = static_cast<A>(rates.beta2), rest2 = static_cast<A>(1 - rates.beta2);
    const A eps = static_cast<A>(rates.eps);
    const bool aligned = isVectorAligned(s.w) && isVectorAligned(s.m) && isVectorAligned(s.v) &&
                         isVectorAligned(s.gradient) && isVectorAligned(s.rounded);
    forBlockPacks<kVector<A>>(begin, end, aligned, [&]<int kWidth>(int64_t i) {
      const auto gradient = loadPack<kWidth>(s.gradient + i);
      auto w = loadPack<kWidth>(s.w + i), m = loadPack<kWidth>(s.m + i), v = loadPack<kWidth>(s.v + i);
      Pack<bf16, kWidth> rounded;
      MF_UNROLL
      for (int e = 0; e < kWidth; ++e) {
        const A g = static_cast<A>(gradient.elements[e]);
        A &own = w.elements[e], &first = m.elements[e], &second = v.elements[e];
        first = beta1 * first + rest1 * g;
        second = beta2 * second + rest2 * (g * g);
        own = keep * own - rate * (first / (std::sqrt(second) * inverseRoot2 + eps));
        rounded.elements[e] = bf16(own);
      }
      storeVector(s.m + i, m);
      storeVector(s.v + i, v);
      storeVector(s.w + i, w);
      if (s.rounded) storeVector(s.rounded + i, rounded);
    });
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
      forTensorBlocks<State<A, G>, kParts>(
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
