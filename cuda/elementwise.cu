#include <type_traits>

#include "cuda/cuda_backend.h"
#include "cuda/map.cuh"
#include "cuda/unary.cuh"

namespace mf::cuda {
namespace {

template <typename F>
void dispatchAny(DType dtype, F&& f) {
  switch (dtype) {
    case DType::i64:
      return f.template operator()<int64_t>();
    case DType::i32:
      return f.template operator()<int32_t>();
    case DType::i8:
      return f.template operator()<int8_t>();
    case DType::u8:
      return f.template operator()<uint8_t>();
    default:
      return dispatchFloat(dtype, f);
  }
}

template <typename T>
constexpr bool isReal = std::is_floating_point_v<T> || std::is_same_v<T, bf16>;

// From a real number to an integer: towards zero, saturating, NaN gives 0. Between integers: modulo 2^bits.
template <typename To, typename From>
MF_HOST_DEVICE inline To convert(From from) {
  if constexpr (isReal<From> && !isReal<To>) {
    constexpr double low = std::is_signed_v<To> ? -1.0 * (uint64_t{1} << (8 * sizeof(To) - 1)) : 0.0;
    constexpr double end = std::is_signed_v<To> ? -low : 2.0 * (uint64_t{1} << (8 * sizeof(To) - 1));
    const double value = static_cast<double>(from);
    if (value >= end)
      return static_cast<To>(~(std::is_signed_v<To> ? uint64_t{1} << (8 * sizeof(To) - 1) : 0));
    return value >= low ? static_cast<To>(value) : (value < low ? static_cast<To>(low) : To(0));
  } else if constexpr (std::is_same_v<To, bf16> && std::is_integral_v<From>) {
    return bf16(static_cast<float>(from));
  } else {
    return static_cast<To>(from);
  }
}

template <typename To>
struct Convert {
  template <typename From>
  MF_DEVICE To operator()(From x) const {
    return convert<To>(x);
  }
};

template <typename T>
struct Fill {
  T* out;
  T value;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    Pack<T, kWidth> to;
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) to.elements[e] = value;
    storeVector(out + i, to);
  }
};

template <typename T>
struct Unary {
  UnaryKind kind;
  MF_DEVICE T operator()(T x) const {
    return static_cast<T>(unaryValue(kind, static_cast<Accumulate<T>>(x)));
  }
};

template <typename T>
struct UnaryBackward {
  UnaryKind kind;
  MF_DEVICE T operator()(T x, T dy) const {
    using A = Accumulate<T>;
    return static_cast<T>(static_cast<A>(dy) * unaryGrad(kind, static_cast<A>(x)));
  }
};

template <typename T>
struct Binary {
  BinaryKind kind;
  MF_DEVICE T operator()(T a, T b) const {
    using A = Accumulate<T>;
    const A left = static_cast<A>(a), right = static_cast<A>(b);
    switch (kind) {
      case BinaryKind::Add:
        return static_cast<T>(left + right);
      case BinaryKind::Sub:
        return static_cast<T>(left - right);
      case BinaryKind::Mul:
        return static_cast<T>(left * right);
      case BinaryKind::Div:
        break;
    }
    return static_cast<T>(left / right);
  }
};

// b is repeated along a.
template <typename T>
struct BinaryRepeated {
  Binary<T> f;
  const T *a, *b;
  T* out;
  int64_t period;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    Map2<T, T, T, Binary<T>>{a + i, b + i % period, out + i, f}.template operator()<kWidth>(0);
  }
};

template <typename T>
struct Affine {
  Accumulate<T> alpha, beta;
  MF_DEVICE T operator()(T x) const { return static_cast<T>(alpha * static_cast<Accumulate<T>>(x) + beta); }
};

struct Increment {
  MF_DEVICE int32_t operator()(int32_t x) const { return x + 1; }
};

template <typename X, typename Y>
struct AddScaled {
  using A = std::conditional_t<std::is_same_v<X, double> || std::is_same_v<Y, double>, double, float>;
  A alpha;
  MF_DEVICE Y operator()(X x, Y y) const {
    return static_cast<Y>(static_cast<A>(y) + alpha * static_cast<A>(x));
  }
};

}  // namespace

void CudaBackend::copy(const CopyArgs& args) {
  dispatchAny(args.in.dtype, [&]<typename From>() {
    dispatchAny(args.out.dtype, [&]<typename To>() {
      map(stream_, args.out.numel(), args.in.as<From>(), args.out.as<To>(), Convert<To>{});
    });
  });
}

void CudaBackend::fill(const FillArgs& args) {
  dispatchAny(args.out.dtype, [&]<typename T>() {
    mapElements<kVector<T>>(stream_, args.out.numel(), isVectorAligned(args.out.data),
                            Fill<T>{args.out.as<T>(), convert<T>(args.value)});
  });
}

void CudaBackend::unary(const UnaryArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    map(stream_, args.x.numel(), args.x.as<T>(), args.out.as<T>(), Unary<T>{args.kind});
  });
}

void CudaBackend::unaryBackward(const UnaryBackwardArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    map(stream_, args.x.numel(), args.x.as<T>(), args.dy.as<T>(), args.dx.as<T>(),
        UnaryBackward<T>{args.kind});
  });
}

void CudaBackend::binary(const BinaryArgs& args) {
  const int64_t n = args.a.numel(), period = args.b.numel();
  dispatchFloat(args.a.dtype, [&]<typename T>() {
    const T *a = args.a.as<T>(), *b = args.b.as<T>();
    T* out = args.out.as<T>();
    const Binary<T> f{args.kind};
    if (period == n) return map(stream_, n, a, b, out, f);
    const bool aligned =
        isVectorAligned(a) && isVectorAligned(b) && isVectorAligned(out) && period % kVector<T> == 0;
    mapElements<kVector<T>>(stream_, n, aligned, BinaryRepeated<T>{f, a, b, out, period});
  });
}

void CudaBackend::affine(const AffineArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    map(stream_, args.x.numel(), args.x.as<T>(), args.out.as<T>(),
        Affine<T>{static_cast<A>(args.alpha), static_cast<A>(args.beta)});
  });
}

void CudaBackend::increment(const IncrementArgs& args) {
  int32_t* x = args.x.as<int32_t>();
  map(stream_, args.x.numel(), x, x, Increment{});
}

void CudaBackend::accumulate(const AccumulateArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename X>() {
    dispatchFloat(args.y.dtype, [&]<typename Y>() {
      using Sum = AddScaled<X, Y>;
      Y* y = args.y.as<Y>();
      map(stream_, args.y.numel(), args.x.as<X>(), y, y, Sum{static_cast<typename Sum::A>(args.alpha)});
    });
  });
}

}  // namespace mf::cuda
