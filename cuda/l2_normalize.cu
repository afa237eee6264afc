#include "cuda/cuda_backend.h"
#include "cuda/row_cache.cuh"

namespace mf::cuda {
namespace {

constexpr double kLeastNorm = 1e-12;

template <typename T>
struct L2Normalize {
  using A = Accumulate<T>;
  const T* x;
  T* out;
  A* norms;
  int64_t width;
  MF_DEVICE void operator()(int64_t r) const {
    const T* from = x + r * width;
    const A square =
        rowSum<A>(width, [&](int64_t i) { return static_cast<A>(from[i]) * static_cast<A>(from[i]); });
    const A length = std::sqrt(square), norm = length < A(kLeastNorm) ? A(kLeastNorm) : length;
    if (threadId() == 0) norms[r] = norm;
    forRow(width, [&](int64_t i) { out[r * width + i] = static_cast<T>(static_cast<A>(from[i]) / norm); });
  }
  MF_DEVICE void cached(int64_t r) const {
    RowCache<T> row(x + r * width, width);
    const A length = std::sqrt(row.sum([](A value) { return value * value; }));
    const A norm = length < A(kLeastNorm) ? A(kLeastNorm) : length;
    if (threadId() == 0) norms[r] = norm;
    row.forEach([&](int64_t, A& value) { value /= norm; });
    row.store(out + r * width);
  }
};

// dx = (dy - y (y . dy)) / norm with y = x / norm; where the norm was raised to its least value, dx = dy /
// norm.
template <typename T>
struct L2NormalizeBackward {
  using A = Accumulate<T>;
  const T *x, *dy;
  const A* norms;
  T* dx;
  int64_t width;
  MF_DEVICE void operator()(int64_t r) const {
    const T *from = x + r * width, *gradient = dy + r * width;
    const A norm = norms[r], scale = A(1) / norm;
    A dot = rowSum<A>(
        width, [&](int64_t i) { return static_cast<A>(from[i]) * scale * static_cast<A>(gradient[i]); });
    if (norm <= A(kLeastNorm)) dot = A(0);
    forRow(width, [&](int64_t i) {
      dx[r * width + i] =
          static_cast<T>((static_cast<A>(gradient[i]) - static_cast<A>(from[i]) * scale * dot) * scale);
    });
  }
  MF_DEVICE void cached(int64_t r) const {
    RowCache<T> row(x + r * width, width), gradient(dy + r * width, width);
    const A norm = norms[r], scale = A(1) / norm;
    A dot = row.sumWith(gradient, [&](A value, A slope) { return value * scale * slope; });
    if (norm <= A(kLeastNorm)) dot = A(0);
    gradient.forEachWith(row,
                         [&](int64_t, A& slope, A value) { slope = (slope - value * scale * dot) * scale; });
    gradient.store(dx + r * width);
  }
};

}  // namespace

void CudaBackend::l2Normalize(const L2NormalizeArgs& args) {
  const int64_t rows = args.norm.numel(), width = rows == 0 ? 0 : args.x.numel() / rows;
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    const bool aligned = isVectorAligned(args.x.data) && isVectorAligned(args.out.data);
    forCachedRows<T>(stream_, rows, width, aligned,
                     L2Normalize<T>{args.x.as<T>(), args.out.as<T>(), args.norm.as<Accumulate<T>>(), width});
  });
}

void CudaBackend::l2NormalizeBackward(const L2NormalizeBackwardArgs& args) {
  const int64_t rows = args.norm.numel(), width = rows == 0 ? 0 : args.x.numel() / rows;
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    const bool aligned =
        isVectorAligned(args.x.data) && isVectorAligned(args.dy.data) && isVectorAligned(args.dx.data);
    forCachedRows<T>(stream_, rows, width, aligned,
                     L2NormalizeBackward<T>{args.x.as<T>(), args.dy.as<T>(), args.norm.as<Accumulate<T>>(),
                                            args.dx.as<T>(), width});
  });
}

}  // namespace mf::cuda
