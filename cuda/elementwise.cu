#include <type_traits>

#include "cuda/cuda_backend.h"
#include "cuda/parallel.cuh"
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

template <typename From, typename To>
struct Convert {
  const From* in;
  To* out;
  MF_DEVICE void operator()(int64_t i) const { out[i] = convert<To>(in[i]); }
};

template <typename T>
struct Fill {
  T* out;
  T value;
  MF_DEVICE void operator()(int64_t i) const { out[i] = value; }
};

template <typename T>
struct Unary {
  UnaryKind kind;
  const T* x;
  T* out;
  MF_DEVICE void operator()(int64_t i) const {
    out[i] = static_cast<T>(unaryValue(kind, static_cast<Accumulate<T>>(x[i])));
  }
};

template <typename T>
struct UnaryBackward {
  UnaryKind kind;
  const T *x, *dy;
  T* dx;
  MF_DEVICE void operator()(int64_t i) const {
    using A = Accumulate<T>;
    dx[i] = static_cast<T>(static_cast<A>(dy[i]) * unaryGrad(kind, static_cast<A>(x[i])));
  }
};

template <typename T>
struct Binary {
  BinaryKind kind;
  const T *a, *b;
  T* out;
  int64_t period;
  MF_DEVICE void operator()(int64_t i) const {
    using A = Accumulate<T>;
    const A left = static_cast<A>(a[i]), right = static_cast<A>(b[i % period]);
    A value = A(0);
    switch (kind) {
      case BinaryKind::Add:
        value = left + right;
        break;
      case BinaryKind::Sub:
        value = left - right;
        break;
      case BinaryKind::Mul:
        value = left * right;
        break;
      case BinaryKind::Div:
        value = left / right;
        break;
    }
    out[i] = static_cast<T>(value);
  }
};

template <typename T>
struct Affine {
  const T* x;
  T* out;
  Accumulate<T> alpha, beta;
  MF_DEVICE void operator()(int64_t i) const {
    out[i] = static_cast<T>(alpha * static_cast<Accumulate<T>>(x[i]) + beta);
  }
};

template <typename X, typename Y>
struct AddScaled {
  using A = std::conditional_t<std::is_same_v<X, double> || std::is_same_v<Y, double>, double, float>;
  const X* x;
  Y* y;
  A alpha;
  MF_DEVICE void operator()(int64_t i) const {
    y[i] = static_cast<Y>(static_cast<A>(y[i]) + alpha * static_cast<A>(x[i]));
  }
};

}  // namespace

void CudaBackend::copy(const CopyArgs& args) {
  dispatchAny(args.in.dtype, [&]<typename From>() {
    dispatchAny(args.out.dtype, [&]<typename To>() {
      forElements(stream_, args.out.numel(), Convert<From, To>{args.in.as<From>(), args.out.as<To>()});
    });
  });
}

void CudaBackend::fill(const FillArgs& args) {
  dispatchAny(args.out.dtype, [&]<typename T>() {
    forElements(stream_, args.out.numel(), Fill<T>{args.out.as<T>(), convert<T>(args.value)});
  });
}

void CudaBackend::unary(const UnaryArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    forElements(stream_, args.x.numel(), Unary<T>{args.kind, args.x.as<T>(), args.out.as<T>()});
  });
}

void CudaBackend::unaryBackward(const UnaryBackwardArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    forElements(stream_, args.x.numel(),
                UnaryBackward<T>{args.kind, args.x.as<T>(), args.dy.as<T>(), args.dx.as<T>()});
  });
}

void CudaBackend::binary(const BinaryArgs& args) {
  dispatchFloat(args.a.dtype, [&]<typename T>() {
    forElements(stream_, args.a.numel(),
                Binary<T>{args.kind, args.a.as<T>(), args.b.as<T>(), args.out.as<T>(), args.b.numel()});
  });
}

void CudaBackend::affine(const AffineArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    forElements(
        stream_, args.x.numel(),
        Affine<T>{args.x.as<T>(), args.out.as<T>(), static_cast<A>(args.alpha), static_cast<A>(args.beta)});
  });
}

void CudaBackend::accumulate(const AccumulateArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename X>() {
    dispatchFloat(args.y.dtype, [&]<typename Y>() {
      using Sum = AddScaled<X, Y>;
      forElements(stream_, args.y.numel(),
                  Sum{args.x.as<X>(), args.y.as<Y>(), static_cast<typename Sum::A>(args.alpha)});
    });
  });
}

}  // namespace mf::cuda
