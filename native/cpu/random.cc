#include <cmath>

#include "core/philox.h"
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"

namespace MF_CPU_NAMESPACE {
namespace {

constexpr int64_t kWords = 4;   // random words in a Philox block; element i takes word i % 4 of block i / 4
constexpr int64_t kGroup = 16;  // blocks done at a time
constexpr uint64_t kLowWords = 1ull << 63;  // added to the block's index for the low half of f64 uniforms
constexpr double kTwoPi = 6.283185307179586476925286766559;

// Calls f(i, n, words): words[0, n) are those of the elements from i on, for all elements of [begin, end).
// `begin` is a multiple of 4, `offset` is added to the index of the block.
template <typename F>
void forWords(RandomKey key, int64_t begin, int64_t end, uint64_t offset, F&& f) {
  for (int64_t i = begin; i < end; i += kGroup * kWords) {
    uint32_t planes[kWords][kGroup], words[kGroup * kWords];
    const uint64_t first = static_cast<uint64_t>(i / kWords) + offset;
    for (int64_t g = 0; g < kGroup; ++g) {
      const PhiloxBlock block = philox(key, first + static_cast<uint64_t>(g));
      for (int64_t w = 0; w < kWords; ++w) planes[w][g] = block.word[w];
    }
    for (int64_t g = 0; g < kGroup; ++g)
      for (int64_t w = 0; w < kWords; ++w) words[g * kWords + w] = planes[w][g];
    f(i, end - i < kGroup * kWords ? end - i : kGroup * kWords, words);
  }
}

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

// f64 and f32 share their leading 24 bits, so a model has the same initial weights in every dtype, up to
// rounding.
template <typename T>
void uniform(const RandomArgs& args) {
  using A = Accumulate<T>;
  T* out = args.out.as<T>();
  const A a = static_cast<A>(args.a), width = static_cast<A>(args.b - args.a);
  const T last = args.b > args.a ? below<T>(args.b) : static_cast<T>(args.a);
  const auto place = [&](A u) {
    const T value = static_cast<T>(a + width * u);
    return static_cast<A>(value) > static_cast<A>(last) ? last : value;
  };
  forElements(args.out.numel(), [&](int64_t begin, int64_t end) {
    if constexpr (sizeof(T) == sizeof(double)) {
      uint32_t low[kTaskElements];
      forWords(args.key, begin, end, kLowWords, [&](int64_t i, int64_t n, const uint32_t* words) {
        for (int64_t j = 0; j < n; ++j) low[i - begin + j] = words[j];
      });
      forWords(args.key, begin, end, 0, [&](int64_t i, int64_t n, const uint32_t* words) {
        for (int64_t j = 0; j < n; ++j) out[i + j] = place(uniform01(words[j], low[i - begin + j]));
      });
    } else {
      forWords(args.key, begin, end, 0, [&](int64_t i, int64_t n, const uint32_t* words) {
        for (int64_t j = 0; j < n; ++j) out[i + j] = place(uniform01(words[j]));
      });
    }
  });
}

// Box-Muller: words 2j and 2j + 1 give elements 2j and 2j + 1.
template <typename T>
void normal(const RandomArgs& args) {
  T* out = args.out.as<T>();
  forElements(args.out.numel(), [&](int64_t begin, int64_t end) {
    forWords(args.key, begin, end, 0, [&](int64_t i, int64_t n, const uint32_t* words) {
      for (int64_t j = 0; j < n; j += 2) {
        const double u = (static_cast<double>(words[j]) + 1) * 0x1p-32;  // in (0, 1]
        const double angle = kTwoPi * 0x1p-32 * static_cast<double>(words[j + 1]);
        const double radius = args.b * std::sqrt(-2 * std::log(u));
        out[i + j] = static_cast<T>(args.a + radius * std::cos(angle));
        if (j + 1 < n) out[i + j + 1] = static_cast<T>(args.a + radius * std::sin(angle));
      }
    });
  });
}

}  // namespace

void CpuBackend::random(const RandomArgs& args) {
  dispatchFloat(args.out.dtype, [&]<typename T>() {
    return args.kind == RandomKind::Uniform ? uniform<T>(args) : normal<T>(args);
  });
}

void CpuBackend::dropout(const DropoutArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const T* x = args.x.as<T>();
    T* out = args.out.as<T>();
    // An element is kept when its word is at least p * 2^32.
    const uint64_t threshold = static_cast<uint64_t>(std::ceil(args.p * 0x1p32));
    const A scale = args.p < 1 ? static_cast<A>(1 / (1 - args.p)) : A(0);
    if (threshold > UINT32_MAX)
      return forElements(args.x.numel(), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) out[i] = static_cast<T>(A(0));
      });
    const uint32_t least = static_cast<uint32_t>(threshold);
    forElements(args.x.numel(), [&](int64_t begin, int64_t end) {
      forWords(args.key, begin, end, 0, [&](int64_t i, int64_t n, const uint32_t* words) {
        for (int64_t j = 0; j < n; ++j) {
          const A kept =
              static_cast<A>(x[i + j]) * scale;  // read always: a conditional load does not vectorise
          out[i + j] = static_cast<T>(words[j] >= least ? kept : A(0));
        }
      });
    });
  });
}

}  // namespace MF_CPU_NAMESPACE
