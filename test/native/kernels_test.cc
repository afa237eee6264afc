// The CPU kernels that differ most between instruction sets, against plain loops in double: run for the
// processors of other machines under an emulator, where Node and the op tests would take hours.
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "core/backend.h"
#include "cpu/select.h"

using mf::bf16;
using mf::DType;
using mf::Shape;
using mf::View;

namespace {

constexpr DType dtypeOf(double) {
  return DType::f64;
}
constexpr DType dtypeOf(float) {
  return DType::f32;
}
constexpr DType dtypeOf(bf16) {
  return DType::bf16;
}
constexpr DType dtypeOf(int32_t) {
  return DType::i32;
}
constexpr DType dtypeOf(int8_t) {
  return DType::i8;
}

template <typename T>
struct Array {
  Shape shape;
  std::vector<T> data;

  explicit Array(Shape shape) : shape(shape), data(static_cast<size_t>(shape.numel())) {}
  View view() { return {data.data(), dtypeOf(T{}), shape}; }
  double at(int64_t i) const { return static_cast<double>(data[static_cast<size_t>(i)]); }
};

// Repeatable numbers between -1 and 1.
template <typename T>
Array<T> random(Shape shape, uint32_t seed) {
  Array<T> result(shape);
  uint32_t state = seed * 2654435761u + 1;
  for (T& value : result.data) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<T>(static_cast<float>(state >> 8) / 8388608.0f - 1.0f);
  }
  return result;
}

template <typename T>
constexpr double kEpsilon = sizeof(T) == 8   ? 1e-12
                            : sizeof(T) == 4 ? 2e-5
                                             : 2e-2;

template <typename T>
void near(const char* what, const Array<T>& found, const std::vector<double>& expected) {
  double scale = 0;
  for (double value : expected) scale = std::fmax(scale, std::fabs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double value = found.at(static_cast<int64_t>(i));
    if (std::fabs(value - expected[i]) <= kEpsilon<T> * scale) continue;
    throw std::runtime_error(std::string(what) + ": element " + std::to_string(i) + " is " +
                             std::to_string(value) + ", expected " + std::to_string(expected[i]));
  }
}

mf::Backend& backend() {
  static const std::unique_ptr<mf::Backend> made = mf::cpu::createBackend();
  return *made;
}

constexpr int64_t kIn = 192, kOut = 130, kExperts = 3;

// N rows, of which an expert has none; weights either way round.
template <typename T>
void grouped(int64_t N, bool transposeW) {
  auto x = random<T>({N, kIn}, 1);
  auto w = transposeW ? random<T>({kExperts, kOut, kIn}, 2) : random<T>({kExperts, kIn, kOut}, 2);
  Array<T> out({N, kOut});
  Array<int32_t> order({N}), offsets({kExperts + 1});
  for (int64_t n = 0; n < N; ++n) order.data[static_cast<size_t>(n)] = static_cast<int32_t>(N - 1 - n);
  const auto first = static_cast<int32_t>(N / 3);
  offsets.data = {0, first, first, static_cast<int32_t>(N)};
  backend().groupedGemm({x.view(),
                         w.view(),
                         out.view(),
                         order.view(),
                         offsets.view(),
                         mf::RowMap::Slot,
                         mf::RowMap::Slot,
                         1,
                         transposeW,
                         {},
                         mf::Epilogue::None,
                         mf::UnaryKind::Gelu,
                         {}});
  std::vector<double> expected;
  for (int64_t n = 0; n < N; ++n) {
    const int64_t e = N - 1 - n < first ? 0 : 2;
    for (int64_t j = 0; j < kOut; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < kIn; ++k)
        sum += x.at(n * kIn + k) * w.at(transposeW ? (e * kOut + j) * kIn + k : (e * kIn + k) * kOut + j);
      expected.push_back(sum);
    }
  }
  near("groupedGemm", out, expected);
}

template <typename T>
void quantized(int64_t N) {
  auto x = random<T>({N, kIn}, 3), w = random<T>({kOut, kIn}, 4);
  Array<int8_t> values({kOut, kIn});
  Array<float> scales({kOut, kIn / 64});
  backend().quantize({w.view(), values.view(), scales.view(), 64, true});
  Array<T> out({N, kOut}), widened({kOut, kIn});
  backend().quantizedGemm({x.view(),
                           values.view(),
                           scales.view(),
                           out.view(),
                           {},
                           {},
                           widened.view(),
                           mf::RowMap::Sorted,
                           mf::RowMap::Sorted,
                           1,
                           mf::Epilogue::None,
                           mf::UnaryKind::Gelu});
  std::vector<double> expected;
  for (int64_t n = 0; n < N; ++n)
    for (int64_t j = 0; j < kOut; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < kIn; ++k) {
        const double weight = values.at(j * kIn + k) * scales.at((j * kIn + k) / 64);
        CHECK(std::fabs(weight - w.at(j * kIn + k)) <= scales.at((j * kIn + k) / 64) * 0.51);
        sum += x.at(n * kIn + k) * weight;
      }
      expected.push_back(sum);
    }
  near("quantizedGemm", out, expected);
}

// Stick-breaking of T queries on T keys, two query groups: a_j = s_j prod of (1 - s_m) over j < m <= i.
template <typename T>
void stickBreaking(int64_t T_, int64_t C) {
  constexpr int64_t K = 2;
  auto q = random<T>({1, T_, K, 1, C}, 5), k = random<T>({1, T_, 1, C}, 6), v = random<T>({1, T_, 1, C}, 7);
  Array<T> out({1, T_, K, 1, C});
  mf::AttentionArgs args{};
  args.kind = mf::AttentionKind::StickBreaking;
  args.shape = {1, T_, T_, K, 1, C, T_};
  args.q = q.view(), args.k = k.view(), args.v = v.view(), args.out = out.view();
  args.attendCurrent = true;
  backend().attention(args);
  std::vector<double> expected;
  for (int64_t i = 0; i < T_; ++i)
    for (int64_t g = 0; g < K; ++g) {
      std::vector<double> sum(static_cast<size_t>(C), 0.0);
      double stick = 1;
      for (int64_t j = i; j >= 0; --j) {
        double logit = 0;
        for (int64_t c = 0; c < C; ++c) logit += q.at((i * K + g) * C + c) * k.at(j * C + c);
        const double taken = 1 / (1 + std::exp(-logit / std::sqrt(static_cast<double>(C))));
        for (int64_t c = 0; c < C; ++c) sum[static_cast<size_t>(c)] += stick * taken * v.at(j * C + c);
        stick *= 1 - taken;
      }
      expected.insert(expected.end(), sum.begin(), sum.end());
    }
  near("attention", out, expected);
}

template <typename T>
void normAndSoftmax() {
  constexpr int64_t N = 3, D = 77;
  auto x = random<T>({N, D}, 8), weight = random<T>({D}, 9), bias = random<T>({D}, 10);
  Array<T> normed({N, D});
  Array<mf::Accumulate<T>> mean({N}), rstd({N});
  backend().norm({mf::NormKind::LayerNorm, x.view(), weight.view(), bias.view(), normed.view(), mean.view(),
                  rstd.view(), 1e-5});
  std::vector<double> expected, probabilities;
  for (int64_t n = 0; n < N; ++n) {
    double sum = 0, square = 0, total = 0;
    for (int64_t d = 0; d < D; ++d) sum += x.at(n * D + d), total += std::exp(x.at(n * D + d));
    for (int64_t d = 0; d < D; ++d) square += std::pow(x.at(n * D + d) - sum / D, 2);
    for (int64_t d = 0; d < D; ++d) {
      expected.push_back((x.at(n * D + d) - sum / D) / std::sqrt(square / D + 1e-5) * weight.at(d) +
                         bias.at(d));
      probabilities.push_back(std::exp(x.at(n * D + d)) / total);
    }
  }
  near("norm", normed, expected);
  Array<T> softened({N, D});
  backend().softmax({x.view(), softened.view(), false});
  near("softmax", softened, probabilities);
}

}  // namespace

NATIVE_TEST(groupedProductsOfFewAndManyRows) {
  for (int64_t N : {1, 3, 7, 100})
    for (bool transposeW : {false, true}) {
      grouped<double>(N, transposeW);
      grouped<float>(N, transposeW);
      grouped<bf16>(N, transposeW);
    }
}

NATIVE_TEST(quantizedProductsOfFewAndManyRows) {
  for (int64_t N : {1, 5, 40}) {
    quantized<float>(N);
    quantized<bf16>(N);
  }
}

NATIVE_TEST(stickBreakingAttentionOfFewAndManyRows) {
  for (int64_t T : {1, 9, 150})
    for (int64_t C : {16, 64, 100}) {
      stickBreaking<double>(T, C);
      stickBreaking<float>(T, C);
      stickBreaking<bf16>(T, C);
    }
}

NATIVE_TEST(normsAndSoftmax) {
  normAndSoftmax<double>();
  normAndSoftmax<float>();
  normAndSoftmax<bf16>();
}
