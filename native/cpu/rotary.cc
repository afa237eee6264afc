#include <cmath>

#include "core/pool.h"
#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {
// Channel i of the first half is rotated with channel i of the second by position * base^(-2i / rotaryDim).
void CpuBackend::rotary(const RotaryArgs& args) {
  const int64_t H = args.x.size(2), C = args.x.size(3), N = args.x.size(0) * args.x.size(1);
  const int64_t half = args.rotaryDim / 2;
  const int32_t* positions = args.positions.as<int32_t>();
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    constexpr int64_t kTokens = 16;
    const T* x = args.x.as<T>();
    T* out = args.out.as<T>();
    const auto rotate = [&](int64_t task) {
      const int64_t end = (task + 1) * kTokens < N ? (task + 1) * kTokens : N;
      A* cosine = static_cast<A*>(threadScratch(static_cast<size_t>(args.rotaryDim + 1) * sizeof(A)));
      A* sine = cosine + half;
      for (int64_t n = task * kTokens; n < end; ++n) {
        for (int64_t i = 0; i < half; ++i) {
          const double angle = positions[n] * std::pow(args.base, -2.0 * double(i) / double(args.rotaryDim));
          cosine[i] = A(std::cos(angle));
          sine[i] = A(args.inverse ? -std::sin(angle) : std::sin(angle));
        }
        for (int64_t h = 0; h < H; ++h) {
          const T* from = x + (n * H + h) * C;
          T* to = out + (n * H + h) * C;
          for (int64_t i = 0; i < half; ++i) {
            const A first = A(from[i]), second = A(from[half + i]);
            to[i] = T(first * cosine[i] - second * sine[i]);
            to[half + i] = T(second * cosine[i] + first * sine[i]);
          }
          for (int64_t i = 2 * half; i < C; ++i) to[i] = from[i];
        }
      }
    };
    const int64_t tasks = (N + kTokens - 1) / kTokens;
    if (N * H * C < 1 << 14) {
      for (int64_t task = 0; task < tasks; ++task) rotate(task);
    } else {
      Pool::instance().parallelFor(tasks, rotate);
    }
  });
}

}  // namespace MF_CPU_NAMESPACE
