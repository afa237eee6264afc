#include "cpu/softmax.h"
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"

namespace MF_CPU_NAMESPACE {
namespace {

template <typename T, typename A = Accumulate<T>>
void logSoftmaxRow(const T* x, T* out, int64_t width) {
  const A max = rowMax(x, width);
  const A sum = laneSum<A>(width, [&](int64_t i) { return expOf(static_cast<A>(x[i]) - max); });
  const A logSum = static_cast<A>(std::log(sum));
  for (int64_t i = 0; i < width; ++i) out[i] = static_cast<T>(static_cast<A>(x[i]) - max - logSum);
}

}  // namespace

void CpuBackend::softmax(const SoftmaxArgs& args) {
  const int64_t width = args.x.size(-1), rows = args.x.rows();
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    const T* x = args.x.as<T>();
    T* out = args.out.as<T>();
    forRows(rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        args.log ? logSoftmaxRow(x + r * width, out + r * width, width)
                 : softmaxRow(x + r * width, out + r * width, width);
    });
  });
}

// softmax: dx = y (dy - sum(y dy)); log-softmax: dx = dy - exp(y) sum(dy).
void CpuBackend::softmaxBackward(const SoftmaxBackwardArgs& args) {
  const int64_t width = args.y.size(-1), rows = args.y.rows();
  dispatchFloat(args.y.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    forRows(rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *y = args.y.as<T>() + r * width, *dy = args.dy.as<T>() + r * width;
        T* dx = args.dx.as<T>() + r * width;
        if (args.log) {
          const A sum = laneSum<A>(width, [&](int64_t i) { return static_cast<A>(dy[i]); });
          for (int64_t i = 0; i < width; ++i)
            dx[i] = static_cast<T>(static_cast<A>(dy[i]) - expOf(static_cast<A>(y[i])) * sum);
        } else {
          const A dot =
              laneSum<A>(width, [&](int64_t i) { return static_cast<A>(y[i]) * static_cast<A>(dy[i]); });
          for (int64_t i = 0; i < width; ++i)
            dx[i] = static_cast<T>(static_cast<A>(y[i]) * (static_cast<A>(dy[i]) - dot));
        }
      }
    });
  });
}

}  // namespace MF_CPU_NAMESPACE
