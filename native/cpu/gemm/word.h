#pragma once
// What the GEMM kernels multiply: 32- or 64-bit words along the summed dimension. A word is an f64, an f32, a
// bf16 widened to f32 while packing, or, with vdpbf16ps, a pair of bf16.
#include "cpu/simd.h"

namespace MF_CPU_NAMESPACE {
typedef uint32_t VecU __attribute__((vector_size(kVectorBytes)));
typedef int64_t VecL __attribute__((vector_size(kVectorBytes)));
typedef uint16_t HalfVecU __attribute__((vector_size(kVectorBytes / 2)));

inline VecU widen(const bf16* p) {
  return __builtin_convertvector(load<HalfVecU>(p), VecU);
}

template <typename Element, typename VecType, typename MaskType>
struct PlainWord {
  using T = Element;
  using Word = Element;
  using Acc = Element;
  using WordVec = VecType;
  using AccVec = VecType;
  using Mask = MaskType;
  static constexpr int kElements = 1;
  static constexpr bool kPair = false;

  // A vector of neighbouring words of one row.
  static WordVec line(const T* row) { return load<WordVec>(row); }
  // A vector of neighbouring columns of one word: of a row, or of a pair of rows.
  static WordVec across(const T* row, const T*) { return load<WordVec>(row); }
};
using WordF32 = PlainWord<float, VecF, VecI>;
using WordF64 = PlainWord<double, VecD, VecL>;

struct WordBf16Wide {
  using T = bf16;
  using Word = float;
  using Acc = float;
  using WordVec = VecF;
  using AccVec = VecF;
  using Mask = VecI;
  static constexpr int kElements = 1;
  static constexpr bool kPair = false;

  static WordVec line(const T* row) { return reinterpret_cast<VecF>(widen(row) << 16); }
  static WordVec across(const T* row, const T*) { return line(row); }
};

struct WordBf16Pair {
  using T = bf16;
  using Word = uint32_t;
  using Acc = float;
  using WordVec = VecU;
  using AccVec = VecF;
  using Mask = VecI;
  static constexpr int kElements = 2;
  static constexpr bool kPair = true;

  static WordVec line(const T* row) { return load<WordVec>(row); }
  static WordVec across(const T* even, const T* odd) { return widen(even) | (widen(odd) << 16); }
};

template <typename M>
constexpr int kWordLanes = kVectorBytes / static_cast<int>(sizeof(typename M::Word));

// lanes words of a row of which `elements` elements are left.
template <typename M>
inline typename M::WordVec lineOf(const typename M::T* row, int64_t elements) {
  constexpr int64_t whole = kWordLanes<M> * M::kElements;
  if (elements >= whole) return M::line(row);
  typename M::T rest[whole] = {};
  for (int64_t i = 0; i < elements; ++i) rest[i] = row[i];
  return M::line(rest);
}

// The words that hold one element of type T each.
template <typename T>
struct WideWordOf {
  using type = WordF32;
};
template <>
struct WideWordOf<double> {
  using type = WordF64;
};
template <>
struct WideWordOf<bf16> {
  using type = WordBf16Wide;
};
template <typename T>
using WideWord = typename WideWordOf<T>::type;

// The micro-kernel's tile: kTileRows x kTileColumns sums in registers.
constexpr int kTileRows = 6;
constexpr int kTileVectors = kVectorRegisters == 32 ? 4 : 2;
template <typename M>
constexpr int kTileColumns = kTileVectors* kWordLanes<M>;
// Words of the summed dimension per pass: with 64 columns of 4 bytes, 256 KB of weights that stay in the L2
// cache.
template <typename M>
constexpr int64_t kPassWords = (kVectorBytes == 64 ? 4096 : 2048) /
                               static_cast<int64_t>(sizeof(typename M::Word));

template <typename M>
constexpr int64_t wordsOf(int64_t elements) {
  return (elements + M::kElements - 1) / M::kElements;
}
constexpr int64_t roundUp(int64_t n, int64_t step) {
  return (n + step - 1) / step * step;
}
constexpr int64_t divideUp(int64_t n, int64_t step) {
  return (n + step - 1) / step;
}

}  // namespace MF_CPU_NAMESPACE
