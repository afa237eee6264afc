#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

// Functions that kernels call too.
#ifdef __CUDACC__
#define MF_HOST_DEVICE __host__ __device__
#else
#define MF_HOST_DEVICE
#endif

namespace mf {

// Values are the numbers that JavaScript passes; lib/native/binding.ts lists them in the same order.
enum class DType : uint8_t { f64 = 0, f32 = 1, bf16 = 2, i64 = 3, i32 = 4, i8 = 5, u8 = 6 };

// bfloat16: the upper half of a float32. Conversions round to nearest even and keep NaN.
struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  MF_HOST_DEVICE explicit bf16(float value) : bits(round(value)) {}
  MF_HOST_DEVICE explicit bf16(double value) : bf16(static_cast<float>(value)) {}
  MF_HOST_DEVICE operator float() const {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
  }

 private:
  MF_HOST_DEVICE static uint16_t round(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    const uint32_t rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
    const uint32_t quiet = (word >> 16) | 0x40u;
    return static_cast<uint16_t>((word & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
  }
};
static_assert(sizeof(bf16) == 2);

constexpr size_t itemSize(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
      return 2;
    case DType::i8:
    case DType::u8:
      return 1;
  }
  return 0;
}

constexpr const char* dtypeName(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i64:
      return "i64";
    case DType::i32:
      return "i32";
    case DType::i8:
      return "i8";
    case DType::u8:
      return "u8";
  }
  return "?";
}

constexpr bool isFloat(DType dtype) {
  return dtype <= DType::bf16;
}

// The type that sums, router, losses and optimizer state use beside values of type T: f32 for f32 and bf16,
// f64 for f64.
template <typename T>
struct AccumulateOf {
  using type = float;
};
template <>
struct AccumulateOf<double> {
  using type = double;
};
template <typename T>
using Accumulate = typename AccumulateOf<T>::type;

constexpr DType accumulateDType(DType dtype) {
  return dtype == DType::f64 ? DType::f64 : DType::f32;
}

// Calls f.template operator()<T>() with the C++ type of a floating dtype: f64, f32 or bf16.
template <typename F>
decltype(auto) dispatchFloat(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64:
      return f.template operator()<double>();
    case DType::bf16:
      return f.template operator()<bf16>();
    default:
      return f.template operator()<float>();
  }
}

}  // namespace mf
