// The norm of all gradients and clipping by it.
#include "cuda/cuda_backend.h"
#include "cuda/tensor_blocks.cuh"

namespace mf::cuda {
namespace {

// In f64, where the square of no f32 overflows.
template <typename T>
struct SumOfSquares {
  double* partial;
  MF_DEVICE void operator()(T* x, int64_t begin, int64_t end, int64_t block) const {
    double own = 0;
    forBlockPacks<kVector<T>>(begin, end, isVectorAligned(x), [&]<int kWidth>(int64_t i) {
      const auto pack = loadPack<kWidth>(x + i);
      MF_UNROLL
      for (int e = 0; e < kWidth; ++e) {
        const double value = static_cast<double>(static_cast<Accumulate<T>>(pack.elements[e]));
        own += value * value;
      }
    });
    const double sum = blockReduce(own, Add{});
    if (threadId() == 0) partial[block] = sum;
  }
};

// One block.
template <typename A>
struct NormOfBlocks {
  const double* partial;
  A* norm;
  int32_t* finite;
  int64_t blocks;
  MF_DEVICE void operator()(int64_t) const {
    const double sum = rowSum<double>(blocks, [&](int64_t i) { return partial[i]; });
    if (threadId() != 0) return;
    const A value = static_cast<A>(std::sqrt(sum));
    *norm = value;
    *finite = value - value == A(0) ? 1 : 0;
  }
};

template <typename T, typename N>
struct Clip {
  const N* norm;
  double maxNorm;
  MF_DEVICE void operator()(T* x, int64_t begin, int64_t end, int64_t) const {
    using A = Accumulate<T>;
    const double total = static_cast<double>(*norm), factor = maxNorm / (total + 1e-6);
    if (!(total - total == 0) || !(factor < 1)) return;
    const A by = static_cast<A>(factor);
    forBlockPacks<kVector<T>>(begin, end, isVectorAligned(x), [&]<int kWidth>(int64_t i) {
      auto pack = loadPack<kWidth>(x + i);
      MF_UNROLL
      for (int e = 0; e < kWidth; ++e)
        pack.elements[e] = static_cast<T>(static_cast<A>(pack.elements[e]) * by);
      storeVector(x + i, pack);
    });
  }
};

template <typename T, typename F>
void forTensorsOf(StreamHandle stream, const std::vector<View>& tensors, DType dtype, const F& f) {
  forTensorBlocks<T*>(
      stream, tensors, [&](size_t i) { return tensors[i].dtype == dtype; },
      [&](size_t i) { return tensors[i].as<T>(); }, f);
}

constexpr DType kFloating[] = {DType::f64, DType::f32, DType::bf16};

}  // namespace

void CudaBackend::gradNorm(const GradNormArgs& args) {
  double* partial = args.partial.as<double>();
  for (DType dtype : kFloating)
    dispatchFloat(dtype, [&]<typename T>() {
      forTensorsOf<T>(stream_, args.tensors, dtype, SumOfSquares<T>{partial});
    });
  dispatchAccumulate(args.norm.dtype, [&]<typename A>() {
    forRows(stream_, 1, args.partial.numel(),
            NormOfBlocks<A>{partial, args.norm.as<A>(), args.finite.as<int32_t>(), args.partial.numel()});
  });
}

void CudaBackend::clip(const ClipArgs& args) {
  dispatchAccumulate(args.norm.dtype, [&]<typename N>() {
    for (DType dtype : kFloating)
      dispatchFloat(dtype, [&]<typename T>() {
        forTensorsOf<T>(stream_, args.tensors, dtype, Clip<T, N>{args.norm.as<N>(), args.maxNorm});
      });
  });
}

}  // namespace mf::cuda
