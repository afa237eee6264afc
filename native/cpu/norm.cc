#include "cpu/cpu_backend.h"
#include "cpu/lanes.h"
#include "cpu/parallel.h"

namespace MF_CPU_NAMESPACE {
namespace {

template <NormKind Kind, typename T>
void normForward(const NormArgs& args) {
  using A = Accumulate<T>;
  const int64_t N = args.rstd.numel(), D = args.weight.numel();
  const T *x = args.x.as<T>(), *weight = args.weight.as<T>(), *bias = args.bias.as<T>();
  T* out = args.out.as<T>();
  A *means = args.mean.as<A>(), *rstds = args.rstd.as<A>();
  const A eps = static_cast<A>(args.eps), size = static_cast<A>(D);
  forRows(N, D, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const T* row = x + n * D;
      T* to = out + n * D;
      A mean = A(0);
      if constexpr (Kind == NormKind::LayerNorm) {
        mean = laneSum<A>(D, [&](int64_t i) { return static_cast<A>(row[i]); }) / size;
        means[n] = mean;
      }
      const A variance = laneSum<A>(D,
                                    [&](int64_t i) {
                                      const A d = static_cast<A>(row[i]) - mean;
                                      return d * d;
                                    }) /
                         size;
      const A rstd = A(1) / static_cast<A>(__builtin_sqrt(variance + eps));
      rstds[n] = rstd;
      if (bias)
        for (int64_t i = 0; i < D; ++i)
          to[i] = static_cast<T>((static_cast<A>(row[i]) - mean) * rstd * static_cast<A>(weight[i]) +
                                 static_cast<A>(bias[i]));
      else
        for (int64_t i = 0; i < D; ++i)
          to[i] = static_cast<T>((static_cast<A>(row[i]) - mean) * rstd * static_cast<A>(weight[i]));
    }
  });
}

// One row: dx, and its part of dweight and dbias. With g = dy * weight and h the normalised row,
// dx = rstd * (g - mean(g) - h * mean(g h)); RMSNorm has no mean(g).
template <NormKind Kind, typename T, typename A>
void backwardRow(const T* x, const T* dy, const T* weight, A mean, A rstd, int64_t D, T* dx, A* dweight,
                 A* dbias) {
  const auto normalised = [&](int64_t i) { return (static_cast<A>(x[i]) - mean) * rstd; };
  const auto g = [&](int64_t i) { return static_cast<A>(dy[i]) * static_cast<A>(weight[i]); };
  A meanG = A(0);
  if constexpr (Kind == NormKind::LayerNorm) meanG = laneSum<A>(D, g) / static_cast<A>(D);
  const A meanGH = laneSum<A>(D, [&](int64_t i) { return g(i) * normalised(i); }) / static_cast<A>(D);
  for (int64_t i = 0; i < D; ++i) dweight[i] += static_cast<A>(dy[i]) * normalised(i);
  for (int64_t i = 0; i < D; ++i) dbias[i] += static_cast<A>(dy[i]);
  for (int64_t i = 0; i < D; ++i) dx[i] = static_cast<T>(rstd * (g(i) - meanG - normalised(i) * meanGH));
}

// Sums partial [groups, 2, D] over the groups, in order.
template <typename T, typename A>
void reduceGroups(const A* partial, int64_t groups, int64_t D, T* out) {
  forBlocks(D, kTaskElements / (groups > 0 ? groups : 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      A total = A(0);
      for (int64_t group = 0; group < groups; ++group) total += partial[group * 2 * D + i];
      out[i] = static_cast<T>(total);
    }
  });
}

template <NormKind Kind, typename T>
void normBackward(const NormBackwardArgs& args) {
  using A = Accumulate<T>;
  const int64_t N = args.rstd.numel(), D = args.weight.numel(), groups = args.partial.size(0);
  const T *x = args.x.as<T>(), *weight = args.weight.as<T>(), *dy = args.dy.as<T>();
  const A *means = args.mean.as<A>(), *rstds = args.rstd.as<A>();
  T* dx = args.dx.as<T>();
  A* partial = args.partial.as<A>();
  const int64_t groupRows = groups == 0 ? 0 : (N + groups - 1) / groups;
  Pool::instance().parallelFor(groups, [&](int64_t group) {
    A *dweight = partial + group * 2 * D, *dbias = dweight + D;
    for (int64_t i = 0; i < 2 * D; ++i) dweight[i] = A(0);
    const int64_t begin = group * groupRows, end = begin + groupRows < N ? begin + groupRows : N;
    for (int64_t n = begin; n < end; ++n)
      backwardRow<Kind>(x + n * D, dy + n * D, weight, means ? means[n] : A(0), rstds[n], D, dx + n * D,
                        dweight, dbias);
  });
  reduceGroups(partial, groups, D, args.dweight.as<T>());
  if (args.dbias) reduceGroups(partial + D, groups, D, args.dbias.as<T>());
}

}  // namespace

void CpuBackend::norm(const NormArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    return args.kind == NormKind::LayerNorm ? normForward<NormKind::LayerNorm, T>(args)
                                            : normForward<NormKind::RmsNorm, T>(args);
  });
}

void CpuBackend::normBackward(const NormBackwardArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    return args.kind == NormKind::LayerNorm ? MF_ISA::normBackward<NormKind::LayerNorm, T>(args)
                                            : MF_ISA::normBackward<NormKind::RmsNorm, T>(args);
  });
}

}  // namespace MF_CPU_NAMESPACE
