// 8-bit weights: quantising, and products with few rows (weights streamed as they are) or many (an expert's
// weight is widened once, then goes through the GEMM).
#include <cmath>

#include "cpu/gemm/few_rows.h"
#include "cpu/gemm/plan_rows.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace MF_CPU_NAMESPACE {
namespace {

#if !defined(__AVX2__)
typedef int8_t VecQ __attribute__((vector_size(kLanes)));
#endif
constexpr int64_t kFewQuantizedRows = 16;
constexpr int64_t kQuantizedColumns = 128;  // per task

// The compiler makes a scalar loop of the general form. (Masks of ones: GCC 12 warns of the plain
// intrinsics.)
inline VecF widenBytes(const int8_t* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<VecF>(_mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes)));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<VecF>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
#else
  return __builtin_convertvector(__builtin_convertvector(load<VecQ>(p), VecI), VecF);
#endif
}

// One group of one output: n weights that lie `stride` apart.
template <typename T>
float quantizeGroup(const T* w, int64_t stride, int64_t n, int8_t* values) {
  float top = 0;
  bool usable = true;
  for (int64_t k = 0; k < n; ++k) {
    const float size = std::fabs(static_cast<float>(w[k * stride]));
    usable = usable && std::isfinite(size);
    if (size > top) top = size;
  }
  const float scale = top / 127;
  const float inverse = usable && scale > 0 ? 1 / scale : 0;
  for (int64_t k = 0; k < n; ++k) {
    const float scaled = usable ? static_cast<float>(w[k * stride]) * inverse : 0;
    values[k] = static_cast<int8_t>(std::nearbyint(std::fmin(127.0f, std::fmax(-127.0f, scaled))));
  }
  return usable ? scale : NAN;
}

// sums[r * sumsStride] = x[r] . w for R rows and one output; x in f32. Widening leaves few lines of weights
// in flight: they are fetched ahead.
template <int R>
inline void dotQuantized(int64_t in, int64_t group, const float* x, const int8_t* w, const float* scales,
                         float* sums, int64_t sumsStride) {
  constexpr int64_t kLine = 64, kAhead = 64 * kLine;
  const int64_t groups = in / group;
  VecF sum[R] = {};
  for (int64_t g = 0; g < groups; ++g) {
    VecF part[R] = {};
    for (int64_t k = 0; k < group; k += kLanes) {
      const int8_t* values = w + g * group + k;
      if (k % kLine == 0) __builtin_prefetch(values + kAhead);
      const VecF value = widenBytes(values);
      for (int r = 0; r < R; ++r) part[r] += value * load<VecF>(x + r * in + g * group + k);
    }
    for (int r = 0; r < R; ++r) sum[r] += part[r] * splat(scales[g]);
  }
  for (int r = 0; r < R; ++r) sums[r * sumsStride] = sumLanes<float>(sum[r]);
}

inline void dotQuantizedRows(int64_t rows, int64_t in, int64_t group, const float* x, const int8_t* w,
                             const float* scales, float* sums, int64_t stride) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) dotQuantized<4>(in, group, x + r * in, w, scales, sums + r * stride, stride);
  for (; r < rows; ++r) dotQuantized<1>(in, group, x + r * in, w, scales, sums + r * stride, stride);
}

struct Quantized {
  const int8_t* values;  // [E, out, in]
  const float* scales;   // [E, out, in / group]
  int64_t group;
};

// Columns [column, column + columns) of the span's rows.
template <typename T, typename Out>
void streamQuantized(const Product<T, Out>& p, const Quantized& w, const Span& span, int64_t column,
                     int64_t columns) {
  const int64_t rows = span.rows(), in = p.in(), groups = in / w.group;
  float* x = static_cast<float*>(threadScratch(rows * in * sizeof(float)));
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = p.x[span.begin + r];
    for (int64_t k = 0; k < in; ++k) x[r * in + k] = static_cast<float>(row[k]);
  }
  float sums[kFewQuantizedRows][kQuantizedColumns];
  const int64_t first = span.expert * p.width() + column;
  const int8_t* values = w.values + first * in;
  const float* scales = w.scales + first * groups;
  for (int64_t c = 0; c < columns; ++c)
    dotQuantizedRows(rows, in, w.group, x, values + c * in, scales + c * groups, &sums[0][c],
                     kQuantizedColumns);
  finishRows(p, span.begin, rows, column, columns, sums[0], kQuantizedColumns);
}

// The weight of one expert [out, in] in T.
template <typename T>
void dequantize(const Quantized& w, int64_t expert, int64_t out, int64_t in, T* result) {
  const int64_t groups = in / w.group;
  forTasks(divideUp(out, kDotColumns), out * in, [&](int64_t task) {
    const int64_t end = std::min(out, (task + 1) * kDotColumns) * groups;
    for (int64_t g = task * kDotColumns * groups; g < end; ++g) {
      const int8_t* values = w.values + (expert * out * groups + g) * w.group;
      const float scale = w.scales[expert * out * groups + g];
      for (int64_t k = 0; k < w.group; ++k) result[g * w.group + k] = static_cast<T>(values[k] * scale);
    }
  });
}

template <typename T, typename Out>
void multiplyQuantized(Product<T, Out> p, const Quantized& w, T* widened) {
  const int64_t width = p.width(), blocks = divideUp(width, kQuantizedColumns);
  std::vector<Span> few;
  const Groups all = p.groups;
  for (const Span& span : spansByRows(all, std::max<int64_t>(1, all.rows), false)) {
    if (span.rows() <= kFewQuantizedRows) {
      few.push_back(span);
      continue;
    }
    const int32_t offsets[2] = {static_cast<int32_t>(span.begin), static_cast<int32_t>(span.end)};
    dequantize(w, span.expert, width, p.in(), widened);
    p.groups = {1, span.rows(), offsets};
    p.w = widened;
    multiplyGrouped(p);
  }
  int64_t rows = 0;
  for (const Span& span : few) rows += span.rows();
  forTaskShares(static_cast<int64_t>(few.size()) * blocks, rows * p.in() * width, [&](int64_t task) {
    const int64_t column = task % blocks * kQuantizedColumns;
    streamQuantized(p, w, few[task / blocks], column, std::min(kQuantizedColumns, width - column));
  });
}

}  // namespace

void CpuBackend::quantize(const QuantizeArgs& args) {
  const View& w = args.w;
  const int64_t in = args.values.size(-1), out = args.values.size(-2),
                experts = args.values.numel() / (in * out);
  const int64_t group = args.groupSize, groups = in / group;
  dispatchFloat(w.dtype, [&]<typename T>() {
    const T* weights = w.as<T>();
    forTasks(experts * groups, w.numel() * 8, [&](int64_t task) {
      const int64_t e = task / groups, g = task % groups;
      for (int64_t o = 0; o < out; ++o) {
        const int64_t row = e * out + o;
        const T* first =
            args.transposeW ? weights + row * in + g * group : weights + (e * in + g * group) * out + o;
        args.scales.as<float>()[row * groups + g] = quantizeGroup(
            first, args.transposeW ? 1 : out, group, args.values.as<int8_t>() + row * in + g * group);
      }
    });
  });
}

void CpuBackend::quantizedGemm(const QuantizedGemmArgs& args) {
  const auto run = [&]<typename T, typename Out>() {
    const int64_t experts = args.values.shape.rank == 3 ? args.values.size(0) : 1;
    const Quantized w{args.values.as<int8_t>(), args.scales.as<float>(),
                      args.values.size(-1) / args.scales.size(-1)};
    multiplyQuantized(
        Product<T, Out>{
            .groups = checkedGroups("quantizedGemm", args.out.rows(), experts, args.offsets, args.order),
            .x = rowsOf<const T>(args.x, args.xRows, args.order, args.topK),
            .w = nullptr,
            .transposeW = true,
            .out = rowsOf<Out>(args.out, args.outRows, args.order, args.topK),
            .epilogue = args.epilogue,
            .activation = args.activation,
        },
        w, args.widened.as<T>());
  };
  if (args.x.dtype == DType::f32)
    run.template operator()<float, float>();
  else if (args.out.dtype == DType::f32)
    run.template operator()<bf16, float>();
  else
    run.template operator()<bf16, bf16>();
}

}  // namespace MF_CPU_NAMESPACE
