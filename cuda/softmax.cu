#include "cuda/cuda_backend.h"
#include "cuda/row_cache.cuh"

namespace mf::cuda {
namespace {

template <typename T>
struct Softmax {
  using A = Accumulate<T>;
  const T* x;
  T* out;
  int64_t width;
  bool log;
  MF_DEVICE void operator()(int64_t r) const {
    const T* row = x + r * width;
    const A max = rowMax<A>(width, [&](int64_t i) { return static_cast<A>(row[i]); });
    const A sum = rowSum<A>(width, [&](int64_t i) { return std::exp(static_cast<A>(row[i]) - max); });
    const A logSum = std::log(sum), scale = A(1) / sum;
    forRow(width, [&](int64_t i) {
      const A value = static_cast<A>(row[i]) - max;
      out[r * width + i] = static_cast<T>(log ? value - logSum : std::exp(value) * scale);
    });
  }
  MF_DEVICE void cached(int64_t r) const {
    RowCache<T> row(x + r * width, width);
    const A max = row.most();
    const A sum = row.sum([&](A value) { return std::exp(value - max); });
    const A logSum = std::log(sum), scale = A(1) / sum;
    row.forEach(
        [&](int64_t, A& value) { value = log ? value - max - logSum : std::exp(value - max) * scale; });
    row.store(out + r * width);
  }
};

// softmax: dx = y (dy - sum(y dy)); log-softmax: dx = dy - exp(y) sum(dy).
template <typename T>
struct SoftmaxBackward {
  using A = Accumulate<T>;
  const T *y, *dy;
  T* dx;
  int64_t width;
  bool log;
  MF_DEVICE void operator()(int64_t r) const {
    const T *value = y + r * width, *gradient = dy + r * width;
    const A sum = rowSum<A>(width, [&](int64_t i) {
      return static_cast<A>(gradient[i]) * (log ? A(1) : static_cast<A>(value[i]));
    });
    forRow(width, [&](int64_t i) {
      const A v = static_cast<A>(value[i]), g = static_cast<A>(gradient[i]);
      dx[r * width + i] = static_cast<T>(log ? g - std::exp(v) * sum : v * (g - sum));
    });
  }
  MF_DEVICE void cached(int64_t r) const {
    RowCache<T> value(y + r * width, width), gradient(dy + r * width, width);
    const A sum = gradient.sumWith(value, [&](A g, A v) { return g * (log ? A(1) : v); });
    gradient.forEachWith(value, [&](int64_t, A& g, A v) { g = log ? g - std::exp(v) * sum : v * (g - sum); });
    gradient.store(dx + r * width);
  }
};

}  // namespace

void CudaBackend::softmax(const SoftmaxArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    const int64_t width = args.x.size(-1);
    forCachedRows<T>(stream_, args.x.rows(), width,
                     isVectorAligned(args.x.data) && isVectorAligned(args.out.data),
                     Softmax<T>{args.x.as<T>(), args.out.as<T>(), width, args.log});
  });
}

void CudaBackend::softmaxBackward(const SoftmaxBackwardArgs& args) {
  dispatchFloat(args.y.dtype, [&]<typename T>() {
    const int64_t width = args.y.size(-1);
    const bool aligned =
        isVectorAligned(args.y.data) && isVectorAligned(args.dy.data) && isVectorAligned(args.dx.data);
    forCachedRows<T>(stream_, args.y.rows(), width, aligned,
                     SoftmaxBackward<T>{args.y.as<T>(), args.dy.as<T>(), args.dx.as<T>(), width, args.log});
  });
}

}  // namespace mf::cuda
