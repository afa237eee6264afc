#include <cmath>

#include "core/philox.h"
#include "cuda/cuda_backend.h"
#include "cuda/pack.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

constexpr uint64_t kLowWords = 1ull << 63;  // added to the block's index for the low half of f64 uniforms
constexpr double kTwoPi = 6.283185307179586476925286766559;

// The largest T below `end`: rounding must not lift a value to the open end of its interval.
template <typename T>
T below(double end) {
  T value = static_cast<T>(end);
  if (static_cast<double>(value) < end) return value;
  if constexpr (sizeof(T) == sizeof(bf16)) {
    const float word = static_cast<float>(value);
    value.bits = static_cast<uint16_t>(word == 0 ? 0x8001 : (word > 0 ? value.bits - 1 : value.bits + 1));
    return value;
  } else {
    return std::nextafter(value, static_cast<T>(-INFINITY));
  }
}

// Each functor makes the four elements of one Philox block.
template <typename T>
struct Uniform {
  using A = Accumulate<T>;
  T* out;
  int64_t n;
  RandomKey key;
  A a, width;
  T last;
  MF_DEVICE void operator()(int64_t block) const {
    const PhiloxBlock high = philox(key, static_cast<uint64_t>(block));
    PhiloxBlock low{};
    if constexpr (sizeof(T) == sizeof(double)) low = philox(key, static_cast<uint64_t>(block) + kLowWords);
    for (int w = 0; w < 4 && block * 4 + w < n; ++w) {
      A u;
      if constexpr (sizeof(T) == sizeof(double))
        u = uniform01(high.word[w], low.word[w]);
      else
        u = uniform01(high.word[w]);
      const T value = static_cast<T>(a + width * u);
      out[block * 4 + w] = static_cast<A>(value) > static_cast<A>(last) ? last : value;
    }
  }
};

// Box-Muller: words 2j and 2j + 1 give elements 2j and 2j + 1.
template <typename T>
struct Normal {
  T* out;
  int64_t n;
  RandomKey key;
  double mean, deviation;
  MF_DEVICE void operator()(int64_t block) const {
    const PhiloxBlock random = philox(key, static_cast<uint64_t>(block));
    for (int w = 0; w < 4; w += 2) {
      const int64_t i = block * 4 + w;
      const double u = (static_cast<double>(random.word[w]) + 1) * 0x1p-32;  // in (0, 1]
      const double angle = kTwoPi * 0x1p-32 * static_cast<double>(random.word[w + 1]);
      const double radius = deviation * std::sqrt(-2 * std::log(u));
      if (i < n) out[i] = static_cast<T>(mean + radius * std::cos(angle));
      if (i + 1 < n) out[i + 1] = static_cast<T>(mean + radius * std::sin(angle));
    }
  }
};

template <typename T>
struct Dropout {
  using A = Accumulate<T>;
  const T* x;
  T* out;
  int64_t n;
  RandomKey key;
  uint64_t threshold;  // an element is kept when its word is at least this
  A scale;
  bool aligned;
  MF_DEVICE void operator()(int64_t block) const {
    const PhiloxBlock random = philox(key, static_cast<uint64_t>(block));
    const int64_t first = block * 4;
    const auto kept = [&](T value, uint32_t word) {
      return static_cast<T>(word >= threshold ? static_cast<A>(value) * scale : A(0));
    };
    if constexpr (sizeof(T) < sizeof(double)) {
      if (aligned && first + 4 <= n) {
        auto pack = loadPack<4>(x + first);
        MF_UNROLL
        for (int w = 0; w < 4; ++w) pack.elements[w] = kept(pack.elements[w], random.word[w]);
        return storeVector(out + first, pack);
      }
    }
    for (int w = 0; w < 4 && first + w < n; ++w) out[first + w] = kept(x[first + w], random.word[w]);
  }
};

}  // namespace

void CudaBackend::random(const RandomArgs& args) {
  const int64_t n = args.out.numel(), blocks = ceilDiv(n, 4);
  dispatchFloat(args.out.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    T* out = args.out.as<T>();
    if (args.kind == RandomKind::Normal)
      return forElements(stream_, blocks, Normal<T>{out, n, args.key, args.a, args.b});
    const T last = args.b > args.a ? below<T>(args.b) : static_cast<T>(args.a);
    forElements(stream_, blocks,
                Uniform<T>{out, n, args.key, static_cast<A>(args.a), static_cast<A>(args.b - args.a), last});
  });
}

void CudaBackend::dropout(const DropoutArgs& args) {
  const int64_t n = args.x.numel();
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const A scale = args.p < 1 ? static_cast<A>(1 / (1 - args.p)) : A(0);
    forElements(stream_, ceilDiv(n, 4),
                Dropout<T>{args.x.as<T>(), args.out.as<T>(), n, args.key,
                           static_cast<uint64_t>(std::ceil(args.p * 0x1p32)), scale,
                           isVectorAligned(args.x.data) && isVectorAligned(args.out.data)});
  });
}

}  // namespace mf::cuda
