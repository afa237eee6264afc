// A token's output is the gated sum of its K rows, added in the order of its slots.
#include "cuda/cuda_backend.h"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

template <typename T>
struct Combine {
  using A = Accumulate<T>;
  const T* y;
  const A* gates;
  T* out;
  int64_t K, D;
  MF_DEVICE void operator()(int64_t i) const {
    const int64_t n = i / D, d = i % D;
    A sum = A(0);
    for (int64_t k = 0; k < K; ++k) {
      const int64_t row = n * K + k;
      sum += (gates ? gates[row] : A(1)) * static_cast<A>(y[row * D + d]);
    }
    out[i] = static_cast<T>(sum);
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
};

}  // namespace

void CudaBackend::combine(const CombineArgs& args) {
  dispatchFloat(args.y.dtype, [&]<typename T>() {
    forElements(stream_, args.out.numel(),
                Combine<T>{args.y.as<T>(), args.gates.as<Accumulate<T>>(), args.out.as<T>(), args.topK,
                           args.out.size(1)});
  });
}

void CudaBackend::combineBackward(const CombineBackwardArgs& args) {
  const int64_t D = args.dout.size(1);
  dispatchFloat(args.dout.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    forRows(stream_, args.dout.size(0) * args.topK, D,
            CombineBackward<T>{args.dout.as<T>(), args.y.as<T>(), args.gates.as<A>(), args.dy.as<T>(),
                               args.dgates.as<A>(), args.topK, D});
  });
}

}  // namespace mf::cuda
