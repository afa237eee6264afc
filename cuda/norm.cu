#include "cuda/cuda_backend.h"
#include "cuda/map.cuh"
#include "cuda/row_cache.cuh"

namespace mf::cuda {
namespace {

template <typename T>
struct Norm {
  using A = Accumulate<T>;
  bool centred;  // LayerNorm
  const T *x, *weight, *bias;
  T* out;
  A *mean, *rstd;
  int64_t D;
  A eps;
  MF_DEVICE void operator()(int64_t n) const {
    const T* row = x + n * D;
    A centre = A(0);
    if (centred) centre = rowSum<A>(D, [&](int64_t i) { return static_cast<A>(row[i]); }) / static_cast<A>(D);
    const A variance = rowSum<A>(D,
                                 [&](int64_t i) {
                                   const A d = static_cast<A>(row[i]) - centre;
                                   return d * d;
                                 }) /
                       static_cast<A>(D);
    const A scale = A(1) / std::sqrt(variance + eps);
    if (threadId() == 0) {
      if (centred) mean[n] = centre;
      rstd[n] = scale;
    }
    forRow(D, [&](int64_t i) {
      const A shift = bias ? static_cast<A>(bias[i]) : A(0);
      out[n * D + i] =
          static_cast<T>((static_cast<A>(row[i]) - centre) * scale * static_cast<A>(weight[i]) + shift);
    });
  }
  MF_DEVICE void cached(int64_t n) const {
    RowCache<T> row(x + n * D, D);
    A centre = A(0);
    if (centred) centre = row.sum([](A value) { return value; }) / static_cast<A>(D);
    const A variance =
        row.sum([&](A value) { return (value - centre) * (value - centre); }) / static_cast<A>(D);
    const A scale = A(1) / std::sqrt(variance + eps);
    if (threadId() == 0) {
      if (centred) mean[n] = centre;
      rstd[n] = scale;
    }
    row.forEach([&](int64_t i, A& value) {
      const A shift = bias ? static_cast<A>(bias[i]) : A(0);
      value = (value - centre) * scale * static_cast<A>(weight[i]) + shift;
    });
    row.store(out + n * D);
  }
};

// With g = dy * weight and h the normalised row, dx = rstd * (g - mean(g) - h * mean(g h)); RMSNorm has no
// mean(g).
template <typename T>
struct NormInputGrad {
  using A = Accumulate<T>;
  bool centred;
  const T *x, *weight, *dy;
  const A *mean, *rstd;
  T* dx;
  int64_t D;
  MF_DEVICE void operator()(int64_t n) const {
    const A centre = centred ? mean[n] : A(0), scale = rstd[n];
    const auto h = [&](int64_t i) { return (static_cast<A>(x[n * D + i]) - centre) * scale; };
    const auto g = [&](int64_t i) { return static_cast<A>(dy[n * D + i]) * static_cast<A>(weight[i]); };
    const A meanG = centred ? rowSum<A>(D, g) / static_cast<A>(D) : A(0);
    const A meanGH = rowSum<A>(D, [&](int64_t i) { return g(i) * h(i); }) / static_cast<A>(D);
    forRow(D, [&](int64_t i) { dx[n * D + i] = static_cast<T>(scale * (g(i) - meanG - h(i) * meanGH)); });
  }
  MF_DEVICE void cached(int64_t n) const {
    const A centre = centred ? mean[n] : A(0), scale = rstd[n];
    RowCache<T> h(x + n * D, D), g(dy + n * D, D);
    h.forEachWith(g, [&](int64_t i, A& normalised, A& gradient) {
      normalised = (normalised - centre) * scale;
      gradient *= static_cast<A>(weight[i]);
    });
    const A meanG = centred ? g.sum([](A value) { return value; }) / static_cast<A>(D) : A(0);
    const A meanGH =
        g.sumWith(h, [](A gradient, A normalised) { return gradient * normalised; }) / static_cast<A>(D);
    g.forEachWith(h, [&](int64_t, A& gradient, A normalised) {
      gradient = scale * (gradient - meanG - normalised * meanGH);
    });
    g.store(dx + n * D);
  }
};

// partial [groups, 2, D]: the sums of a group's rows, kWidth columns per thread.
template <typename T>
struct NormWeightGrad {
  using A = Accumulate<T>;
  const T *x, *dy;
  const A *mean, *rstd;
  A* partial;
  int64_t N, D, groupRows;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    const int64_t group = i / D, column = i % D, end = minimum(N, (group + 1) * groupRows);
    A dweight[kWidth] = {}, dbias[kWidth] = {};
    for (int64_t n = group * groupRows; n < end; ++n) {
      const auto gradient = loadPack<kWidth>(dy + n * D + column), row = loadPack<kWidth>(x + n * D + column);
      const A centre = mean ? mean[n] : A(0), scale = rstd[n];
      MF_UNROLL
      for (int e = 0; e < kWidth; ++e) {
        const A own = static_cast<A>(gradient.elements[e]);
        dweight[e] += own * ((static_cast<A>(row.elements[e]) - centre) * scale);
        dbias[e] += own;
      }
    }
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      partial[group * 2 * D + column + e] = dweight[e];
      partial[group * 2 * D + D + column + e] = dbias[e];
    }
  }
};

// A block adds 32 columns of partial: each warp those of every n-th group, in order, then the sums of the
// warps.
template <typename T>
MF_KERNEL void sumGroupsKernel(const Accumulate<T>* partial, int64_t groups, int64_t D, T* dweight,
                               T* dbias) {
  using A = Accumulate<T>;
  constexpr int kWarps = kThreads / kWarpSize;
  MF_SHARED(A, scales, kThreads);
  MF_SHARED(A, shifts, kThreads);
  const int64_t column = int64_t{blockId()} * kWarpSize + laneId();
  A scale = A(0), shift = A(0);
  for (int64_t group = warpId(); group < groups && column < D; group += kWarps) {
    scale += partial[group * 2 * D + column];
    shift += partial[group * 2 * D + D + column];
  }
  scales[threadId()] = scale;
  shifts[threadId()] = shift;
  syncThreads();
  if (warpId() > 0 || column >= D) return;
  for (int warp = 1; warp < kWarps; ++warp) {
    scale += scales[warp * kWarpSize + laneId()];
    shift += shifts[warp * kWarpSize + laneId()];
  }
  dweight[column] = static_cast<T>(scale);
  if (dbias) dbias[column] = static_cast<T>(shift);
}

}  // namespace

void CudaBackend::norm(const NormArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const int64_t D = args.weight.numel();
    const bool aligned = isVectorAligned(args.x.data) && isVectorAligned(args.out.data);
    forCachedRows<T>(
        stream_, args.rstd.numel(), D, aligned,
        Norm<T>{args.kind == NormKind::LayerNorm, args.x.as<T>(), args.weight.as<T>(), args.bias.as<T>(),
                args.out.as<T>(), args.mean.as<A>(), args.rstd.as<A>(), D, static_cast<A>(args.eps)});
  });
}

void CudaBackend::normBackward(const NormBackwardArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const int64_t N = args.rstd.numel(), D = args.weight.numel(), groups = args.partial.size(0);
    const T *x = args.x.as<T>(), *dy = args.dy.as<T>();
    const A *mean = args.mean.as<A>(), *rstd = args.rstd.as<A>();
    A* partial = args.partial.as<A>();
    const bool aligned = isVectorAligned(x) && isVectorAligned(dy) && isVectorAligned(args.dx.data);
    forCachedRows<T>(stream_, N, D, aligned,
                     NormInputGrad<T>{args.kind == NormKind::LayerNorm, x, args.weight.as<T>(), dy, mean,
                                      rstd, args.dx.as<T>(), D});
    mapElements<kVector<T>>(
        stream_, groups * D, aligned && D % kVector<T> == 0,
        NormWeightGrad<T>{x, dy, mean, rstd, partial, N, D, groups == 0 ? 0 : ceilDiv(N, groups)});
    launch(sumGroupsKernel<T>, {ceilDiv(D, kWarpSize)}, kThreads, 0, stream_, partial, groups, D,
           args.dweight.as<T>(), args.dbias.as<T>());
  });
}

}  // namespace mf::cuda
