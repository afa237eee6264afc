// The products of sm_90a against sums in doubles: both layouts of the weights, rows one after the other and
// gathered, empty and one-row experts, a depth and widths that are no multiples of a tile's.
#include <cmath>
#include <random>
#include <vector>

#include "cuda/gemm.cuh"
#include "run.h"

namespace {

using namespace mf;
using namespace mf::cuda;

struct Case {
  std::vector<int32_t> offsets;  // of the experts; dense without
  int64_t rows, in, out;
  bool transposeW, gathered;
};

std::vector<bf16> numbers(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<bf16> result(static_cast<size_t>(count));
  for (bf16& x : result) x = bf16(normal(random));
  return result;
}

size_t at(int64_t row, int64_t width, int64_t column) {
  return static_cast<size_t>(row * width + column);
}

// Largest |error| / sum |x w|; infinite where a row that is no expert's was written, or one was not.
double largestError(const Case& c) {
  const auto experts = c.offsets.empty() ? 1 : static_cast<int64_t>(c.offsets.size()) - 1;
  const std::vector<bf16> x = numbers(c.rows * c.in, 1), w = numbers(experts * c.in * c.out, 2);
  std::vector<int32_t> order(static_cast<size_t>(c.rows));  // 7 is prime to the rows of the cases
  for (int64_t s = 0; s < c.rows; ++s) order[static_cast<size_t>(s)] = static_cast<int32_t>(s * 7 % c.rows);
  std::vector<float> out(static_cast<size_t>(c.rows * c.out), NAN);
  const RowMap map = c.gathered ? RowMap::Slot : RowMap::Sorted;
  multiplyByWarpgroups<float>(nullptr, {{experts, c.rows, c.offsets.empty() ? nullptr : c.offsets.data()},
                                        {x.data(), c.in, map, order.data(), 1},
                                        w.data(),
                                        c.transposeW,
                                        {out.data(), c.out, map, order.data(), 1},
                                        nullptr,
                                        Epilogue::None,
                                        UnaryKind::Relu,
                                        nullptr});
  double worst = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t first = c.offsets.empty() ? 0 : c.offsets[static_cast<size_t>(e)];
    const int64_t last = c.offsets.empty() ? c.rows : c.offsets[static_cast<size_t>(e) + 1];
    for (int64_t s = first; s < last; ++s) {
      const int64_t row = c.gathered ? order[static_cast<size_t>(s)] : s;
      for (int64_t n = 0; n < c.out; ++n) {
        double sum = 0, magnitude = 0;
        for (int64_t k = 0; k < c.in; ++k) {
          const size_t weight = c.transposeW ? at(e * c.out + n, c.in, k) : at(e * c.in + k, c.out, n);
          const double term = static_cast<double>(x[at(row, c.in, k)]) * static_cast<double>(w[weight]);
          sum += term;
          magnitude += std::abs(term);
        }
        const double error = std::abs(static_cast<double>(out[at(row, c.out, n)]) - sum);
        worst = std::isnan(error) ? INFINITY : std::max(worst, error / magnitude);
      }
    }
  }
  return worst;
}

void checkAll(const std::vector<int32_t>& offsets, int64_t rows, int64_t in, int64_t out) {
  for (const bool transposeW : {false, true})
    for (const bool gathered : {false, true})
      CHECK(largestError({offsets, rows, in, out, transposeW, gathered}) < 1e-6);
}

// dw [experts, in, out] = sums over an expert's rows of x^T dy; x gathered, or both one after the other.
double largestErrorOfGradient(const std::vector<int32_t>& offsets, int64_t in, int64_t out, bool gathered) {
  const auto experts = static_cast<int64_t>(offsets.size()) - 1, rows = int64_t{offsets.back()};
  const std::vector<bf16> x = numbers(rows * in, 1), dy = numbers(rows * out, 2);
  std::vector<int32_t> order(static_cast<size_t>(rows));
  for (int64_t s = 0; s < rows; ++s) order[static_cast<size_t>(s)] = static_cast<int32_t>(s * 7 % rows);
  std::vector<float> dw(static_cast<size_t>(experts * in * out), NAN);
  const RowMap map = gathered ? RowMap::Slot : RowMap::Sorted;
  weightGradient<bf16, float>(nullptr, {{experts, rows, offsets.data()},
                                        {x.data(), in, map, order.data(), 1},
                                        {dy.data(), out, RowMap::Sorted, nullptr, 1},
                                        dw.data(),
                                        false});
  double worst = 0;
  for (int64_t e = 0; e < experts; ++e)
    for (int64_t i = 0; i < in; ++i)
      for (int64_t n = 0; n < out; ++n) {
        double sum = 0, magnitude = 1e-30;
        for (int64_t s = offsets[static_cast<size_t>(e)]; s < offsets[static_cast<size_t>(e) + 1]; ++s) {
          const int64_t row = gathered ? order[static_cast<size_t>(s)] : s;
          const double term = static_cast<double>(x[at(row, in, i)]) * static_cast<double>(dy[at(s, out, n)]);
          sum += term;
          magnitude += std::abs(term);
        }
        const double error = std::abs(static_cast<double>(dw[at(e * in + i, out, n)]) - sum);
        worst = std::isnan(error) ? INFINITY : std::max(worst, error / magnitude);
      }
  return worst;
}

}  // namespace

NATIVE_TEST(warpgroupsMultiplyOneTile) {
  checkAll({}, 128, 64, 128);
}

NATIVE_TEST(warpgroupsMultiplyEdges) {
  underEverySchedule([] { checkAll({}, 150, 72, 136); });
}

NATIVE_TEST(warpgroupsMultiplyExperts) {
  checkAll({0, 0, 1, 131, 131, 200, 465}, 465, 328, 72);  // several rounds of the stages
}

NATIVE_TEST(warpgroupsMultiplyWideTiles) {
  checkAll({0, 129, 129, 260}, 260, 264, 328);
}

NATIVE_TEST(warpgroupsSumGradientsOfWeights) {
  for (const bool gathered : {false, true}) {
    CHECK(largestErrorOfGradient({0, 0, 1, 131, 131, 465}, 136, 72, gathered) < 1e-6);
    CHECK(largestErrorOfGradient({0, 64, 64, 150}, 72, 264, gathered) < 1e-6);
  }
  underEverySchedule([] { CHECK(largestErrorOfGradient({0, 70, 71}, 72, 40, true) < 1e-6); });
}
