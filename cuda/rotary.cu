#include "cuda/cuda_backend.h"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

// Channel i of the first half is rotated with channel i of the second by position * base^(-2i / rotaryDim).
template <typename T>
struct Rotary {
  using A = Accumulate<T>;
  const T* x;
  const int32_t* positions;
  T* out;
  int64_t H, C, half;
  double base;
  bool inverse;

  // index: of [N, C - half]: a pair of channels, or one that stays, in all heads.
  MF_DEVICE void operator()(int64_t index) const {
    const int64_t n = index / (C - half), c = index % (C - half);
    const int64_t first = n * H * C + c;
    if (c >= half) {
      for (int64_t h = 0; h < H; ++h) out[first + half + h * C] = x[first + half + h * C];
      return;
    }
    const double angle = positions[n] * std::pow(base, -static_cast<double>(c) / static_cast<double>(half));
    const A cosine = static_cast<A>(std::cos(angle));
    const A sine = static_cast<A>(inverse ? -std::sin(angle) : std::sin(angle));
    for (int64_t h = 0; h < H; ++h) {
      const int64_t at = first + h * C;
      const A left = static_cast<A>(x[at]), right = static_cast<A>(x[at + half]);
      out[at] = static_cast<T>(left * cosine - right * sine);
      out[at + half] = static_cast<T>(right * cosine + left * sine);
    }
  }
};

}  // namespace

void CudaBackend::rotary(const RotaryArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    const int64_t C = args.x.size(3), half = args.rotaryDim / 2;
    forElements(stream_, args.positions.numel() * (C - half),
                Rotary<T>{args.x.as<T>(), args.positions.as<int32_t>(), args.out.as<T>(), args.x.size(2), C,
                          half, args.base, args.inverse});
  });
}

}  // namespace mf::cuda
