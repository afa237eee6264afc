#include <cstring>
#include <type_traits>

#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"
#include "cpu/unary.h"

namespace MF_CPU_NAMESPACE {
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
To convert(From from) {
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
void convertBlock(const From* in, To* out, int64_t n) {
  if constexpr (std::is_same_v<From, To>)
    std::memcpy(out, in, static_cast<size_t>(n) * sizeof(To));
  else
    for (int64_t i = 0; i < n; ++i) out[i] = convert<To>(in[i]);
}

template <BinaryKind Kind, typename A>
A combine(A a, A b) {
  if constexpr (Kind == BinaryKind::Add) return a + b;
  if constexpr (Kind == BinaryKind::Sub) return a - b;
  if constexpr (Kind == BinaryKind::Mul) return a * b;
  if constexpr (Kind == BinaryKind::Div) return a / b;
}

template <BinaryKind Kind, typename T>
void binaryRow(const T* a, const T* b, T* out, int64_t n) {
  using A = Accumulate<T>;
  for (int64_t i = 0; i < n; ++i)
    out[i] = static_cast<T>(combine<Kind>(static_cast<A>(a[i]), static_cast<A>(b[i])));
}

template <BinaryKind Kind, typename T>
void binaryScalar(const T* a, T scalar, T* out, int64_t n) {
  using A = Accumulate<T>;
  const A b = static_cast<A>(scalar);
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(combine<Kind>(static_cast<A>(a[i]), b));
}

template <BinaryKind Kind, typename T>
void binaryKernel(const BinaryArgs& args) {
  const T *a = args.a.as<T>(), *b = args.b.as<T>();
  T* out = args.out.as<T>();
  const int64_t period = args.b.numel();
  if (period == 1)
    return forElements(args.a.numel(), [&](int64_t begin, int64_t end) {
      binaryScalar<Kind>(a + begin, *b, out + begin, end - begin);
    });
  forElements(args.a.numel(), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end;) {
      const int64_t offset = i % period, left = end - i;
      const int64_t n = period - offset < left ? period - offset : left;
      binaryRow<Kind>(a + i, b + offset, out + i, n);
      i += n;
    }
  });
}

template <typename X, typename Y>
void accumulateKernel(const X* x, Y* y, double factor, int64_t size) {
  // The wider of the two.
  using A = std::conditional_t<std::is_same_v<X, double> || std::is_same_v<Y, double>, double, float>;
  const A alpha = static_cast<A>(factor);
  forElements(size, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      y[i] = static_cast<Y>(static_cast<A>(y[i]) + alpha * static_cast<A>(x[i]));
  });
}

}  // namespace

void CpuBackend::copy(const CopyArgs& args) {
  dispatchAny(args.in.dtype, [&]<typename From>() {
    dispatchAny(args.out.dtype, [&]<typename To>() {
      const From* in = args.in.as<From>();
      To* out = args.out.as<To>();
      forElements(args.out.numel(),
                  [&](int64_t begin, int64_t end) { convertBlock(in + begin, out + begin, end - begin); });
    });
  });
}

void CpuBackend::fill(const FillArgs& args) {
  dispatchAny(args.out.dtype, [&]<typename T>() {
    T* out = args.out.as<T>();
    const T value = convert<T>(args.value);
    forElements(args.out.numel(), [&](int64_t begin, int64_t end) {
      const T same = value;  // a copy that no store to out can change
      for (int64_t i = begin; i < end; ++i) out[i] = same;
    });
  });
}

void CpuBackend::unary(const UnaryArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    const T* x = args.x.as<T>();
    T* out = args.out.as<T>();
    dispatchUnary(args.kind, [&]<UnaryKind Kind>() {
      forElements(args.x.numel(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          out[i] = static_cast<T>(unaryValue<Kind>(static_cast<Accumulate<T>>(x[i])));
      });
    });
  });
}

void CpuBackend::unaryBackward(const UnaryBackwardArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const T *x = args.x.as<T>(), *dy = args.dy.as<T>();
    T* dx = args.dx.as<T>();
    dispatchUnary(args.kind, [&]<UnaryKind Kind>() {
      forElements(args.x.numel(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
          dx[i] = static_cast<T>(static_cast<A>(dy[i]) * unaryGrad<Kind>(static_cast<A>(x[i])));
      });
    });
  });
}

void CpuBackend::binary(const BinaryArgs& args) {
  dispatchFloat(args.a.dtype, [&]<typename T>() {
    switch (args.kind) {
      case BinaryKind::Add:
        return binaryKernel<BinaryKind::Add, T>(args);
      case BinaryKind::Sub:
        return binaryKernel<BinaryKind::Sub, T>(args);
      case BinaryKind::Mul:
        return binaryKernel<BinaryKind::Mul, T>(args);
      case BinaryKind::Div:
        return binaryKernel<BinaryKind::Div, T>(args);
    }
  });
}

void CpuBackend::affine(const AffineArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const T* x = args.x.as<T>();
    T* out = args.out.as<T>();
    const A alpha = static_cast<A>(args.alpha), beta = static_cast<A>(args.beta);
    forElements(args.x.numel(), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(alpha * static_cast<A>(x[i]) + beta);
    });
  });
}

void CpuBackend::increment(const IncrementArgs& args) {
  for (int64_t i = 0; i < args.x.numel(); ++i) ++args.x.as<int32_t>()[i];
}

void CpuBackend::accumulate(const AccumulateArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename X>() {
    dispatchFloat(args.y.dtype, [&]<typename Y>() {
      accumulateKernel(args.x.as<X>(), args.y.as<Y>(), args.alpha, args.y.numel());
    });
  });
}

}  // namespace MF_CPU_NAMESPACE
