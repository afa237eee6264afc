// A token's output is the gated sum of its K rows, added in the order of its slots.
#include "cuda/cuda_backend.h"
#include "cuda/map.cuh"
#include "cuda/row_cache.cuh"

namespace mf::cuda {
namespace {

template <typename T>
struct Combine {
  using A = Accumulate<T>;
  const T* y;
  const A* gates;
  T* out;
  int64_t K, D;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    const int64_t n = i / D, d = i % D;
    A sums[kWidth] = {};
    for (int64_t k = 0; k < K; ++k) {
      const int64_t row = n * K + k;
      const A gate = gates ? gates[row] : A(1);
      const auto own = loadPack<kWidth>(y + row * D + d);
      MF_UNROLL
      for (int e = 0; e < kWidth; ++e) sums[e] += gate * static_cast<A>(own.elements[e]);
    }
    Pack<T, kWidth> to;
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) to.elements[e] = static_cast<T>(sums[e]);
    storeVector(out + i, to);
  }
};

template <typename T>
struct CombineBackward {
  using A = Accumulate<T>;
  const T *dout, *y;
  const A* gates;
  T* dy;
  A* dgates;
  int64_t K, D;
  MF_DEVICE void operator()(int64_t row) const {
    const T* gradient = dout + row / K * D;
    const A gate = gates ? gates[row] : A(1);
    if (dy)
      forRow(D, [&](int64_t d) { dy[row * D + d] = static_cast<T>(gate * static_cast<A>(gradient[d])); });
    if (!dgates) return;
    const A dot =
        rowSum<A>(D, [&](int64_t d) { return static_cast<A>(gradient[d]) * static_cast<A>(y[row * D + d]); });
    if (threadId() == 0) dgates[row] = dot;
  }
  MF_DEVICE void cached(int64_t row) const {
    RowCache<T> gradient(dout + row / K * D, D);
    if (dgates) {
      RowCache<T> own(y + row * D, D);
      const A dot = gradient.sumWith(own, [](A g, A value) { return g * value; });
      if (threadId() == 0) dgates[row] = dot;
    }
    if (!dy) return;
    const A gate = gates ? gates[row] : A(1);
    gradient.forEach([&](int64_t, A& g) { g = gate * g; });
    gradient.store(dy + row * D);
  }
};

}  // namespace

void CudaBackend::combine(const CombineArgs& args) {
  dispatchFloat(args.y.dtype, [&]<typename T>() {
    const int64_t D = args.out.size(1);
    const bool aligned =
        D % kVector<T> == 0 && isVectorAligned(args.y.data) && isVectorAligned(args.out.data);
    mapElements<kVector<T>>(
        stream_, args.out.numel(), aligned,
        Combine<T>{args.y.as<T>(), args.gates.as<Accumulate<T>>(), args.out.as<T>(), args.topK, D});
  });
}

void CudaBackend::combineBackward(const CombineBackwardArgs& args) {
  const int64_t D = args.dout.size(1);
  dispatchFloat(args.dout.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const bool aligned =
        isVectorAligned(args.dout.data) && isVectorAligned(args.y.data) && isVectorAligned(args.dy.data);
    forCachedRows<T>(stream_, args.dout.size(0) * args.topK, D, aligned,
                     CombineBackward<T>{args.dout.as<T>(), args.y.as<T>(), args.gates.as<A>(),
                                        args.dy.as<T>(), args.dgates.as<A>(), args.topK, D});
  });
}

}  // namespace mf::cuda
