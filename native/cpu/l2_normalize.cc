#include "cpu/cpu_backend.h"
#include "cpu/lanes.h"
#include "cpu/parallel.h"

namespace MF_CPU_NAMESPACE {
namespace {

constexpr double kLeastNorm = 1e-12;

}  // namespace

void CpuBackend::l2Normalize(const L2NormalizeArgs& args) {
  const int64_t rows = args.norm.numel(), width = rows == 0 ? 0 : args.x.numel() / rows;
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const T* x = args.x.as<T>();
    T* out = args.out.as<T>();
    A* norms = args.norm.as<A>();
    forRows(rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T* from = x + r * width;
        T* to = out + r * width;
        const A square =
            laneSum<A>(width, [&](int64_t i) { return static_cast<A>(from[i]) * static_cast<A>(from[i]); });
        const A length = static_cast<A>(__builtin_sqrt(square));
        const A norm = length < A(kLeastNorm) ? A(kLeastNorm) : length;
        norms[r] = norm;
        for (int64_t i = 0; i < width; ++i) to[i] = static_cast<T>(static_cast<A>(from[i]) / norm);
      }
    });
  });
}

// dx = (dy - y (y . dy)) / norm with y = x / norm; where the norm was raised to its least value, dx = dy /
// norm.
void CpuBackend::l2NormalizeBackward(const L2NormalizeBackwardArgs& args) {
  const int64_t rows = args.norm.numel(), width = rows == 0 ? 0 : args.x.numel() / rows;
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const T *x = args.x.as<T>(), *dy = args.dy.as<T>();
    const A* norms = args.norm.as<A>();
    T* dx = args.dx.as<T>();
    forRows(rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *from = x + r * width, *grad = dy + r * width;
        T* to = dx + r * width;
        const A norm = norms[r], scale = A(1) / norm;
        A dot = A(0);  // y . dy
        if (!(norm <= A(kLeastNorm)))
          dot = laneSum<A>(
              width, [&](int64_t i) { return static_cast<A>(from[i]) * scale * static_cast<A>(grad[i]); });
        for (int64_t i = 0; i < width; ++i)
          to[i] = static_cast<T>((static_cast<A>(grad[i]) - static_cast<A>(from[i]) * scale * dot) * scale);
      }
    });
  });
}

}  // namespace MF_CPU_NAMESPACE
