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

  // element: of [N, H, C]; the first half's channels write both of a pair.
  MF_DEVICE void operator()(int64_t element) const {
    const int64_t c = element % C;
    if (c >= 2 * half) out[element] = x[element];
    if (c >= half) return;
    const double position = positions[element / C / H];
    const double angle = position * std::pow(base, -static_cast<double>(c) / static_cast<double>(half));
    const A cosine = static_cast<A>(std::cos(angle));
    const A sine = static_cast<A>(inverse ? -std::sin(angle) : std::sin(angle));
    const A first = static_cast<A>(x[element]), second = static_cast<A>(x[element + half]);
    out[element] = static_cast<T>(first * cosine - second * sine);
    out[element + half] = static_cast<T>(second * cosine + first * sine);
  }
};

}  // namespace

void CudaBackend::rotary(const RotaryArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    forElements(stream_, args.x.numel(),
                Rotary<T>{args.x.as<T>(), args.positions.as<int32_t>(), args.out.as<T>(), args.x.size(2),
                          args.x.size(3), args.rotaryDim / 2, args.base, args.inverse});
  });
}

}  // namespace mf::cuda
