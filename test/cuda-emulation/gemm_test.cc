// What the op specs are too small for: many experts, long sums, and how exact they are.
#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "cuda/gemm_rows.cuh"
#include "run.h"

namespace {

using namespace mf;
using namespace mf::cuda;

template <int kRows, int kColumns>
MF_KERNEL void findKernel(ProductTiles<kRows, kColumns> tiles, Tile* found, int* count) {
  Tile tile;
  int index = 0;
  while (tiles.find(index, tile)) {
    if (laneId() == 0) found[index] = tile;
    ++index;
  }
  if (laneId() == 0) *count = index;
}

template <typename T>
std::vector<T> randomNumbers(size_t count, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<T> result(count);
  for (T& x : result) x = static_cast<T>(normal(random));
  return result;
}

struct Sizes {
  int64_t rows, in, out;
  bool transposeW;
};

// Largest |error| / sum |x w| over a dense product.
template <typename T, typename F>
double largestError(const Sizes& s, F multiplyInto) {
  const auto size = [](int64_t a, int64_t b) { return static_cast<size_t>(a * b); };
  const std::vector<T> x = randomNumbers<T>(size(s.rows, s.in), 1),
                       w = randomNumbers<T>(size(s.in, s.out), 2);
  std::vector<float> out(size(s.rows, s.out), NAN);
  multiplyInto(x.data(), w.data(), out.data());
  double worst = 0;
  for (int64_t r = 0; r < s.rows; ++r)
    for (int64_t c = 0; c < s.out; ++c) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < s.in; ++k) {
        const double term = static_cast<double>(x[size(r, s.in) + static_cast<size_t>(k)]) *
                            static_cast<double>(w[s.transposeW ? size(c, s.in) + static_cast<size_t>(k)
                                                               : size(k, s.out) + static_cast<size_t>(c)]);
        sum += term;
        magnitude += std::abs(term);
      }
      const double error = std::abs(static_cast<double>(out[size(r, s.out) + static_cast<size_t>(c)]) - sum);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error / magnitude);
    }
  return worst;
}

RowsOf plain(const void* data, int64_t width) {
  return {data, width, RowMap::Sorted, nullptr, 1};
}

template <typename T>
double errorOf(const Sizes& s) {
  return largestError<T>(s, [&](const T* x, const T* w, float* out) {
    multiply<T, float>(nullptr, {{1, s.rows, nullptr},
                                 plain(x, s.in),
                                 w,
                                 s.transposeW,
                                 plain(out, s.out),
                                 nullptr,
                                 Epilogue::None,
                                 UnaryKind::Relu,
                                 nullptr});
  });
}

// One sum of products after the other, each rounded.
double errorOfPlainF32(const Sizes& s) {
  return largestError<float>(s, [&](const float* x, const float* w, float* out) {
    for (int64_t r = 0; r < s.rows; ++r)
      for (int64_t c = 0; c < s.out; ++c) {
        float sum = 0;
        for (int64_t k = 0; k < s.in; ++k)
          sum += x[r * s.in + k] * (s.transposeW ? w[c * s.in + k] : w[k * s.out + c]);
        out[r * s.out + c] = sum;
      }
  });
}

}  // namespace

NATIVE_TEST(tilesCoverEveryExpertsRowsOnce) {
  constexpr int kRows = 16, kColumns = 8;
  constexpr int64_t kExperts = 70, kWidth = 20;  // three columns of tiles, the last one not full
  std::mt19937 random(3);
  std::vector<int32_t> offsets{0};
  for (int64_t e = 0; e < kExperts; ++e)  // a third have no rows; one has more than a group of tiles
    offsets.push_back(offsets.back() + (e == 40      ? 200
                                        : e % 3 == 0 ? 0
                                                     : static_cast<int32_t>(random() % 40)));
  const int64_t rows = offsets.back();
  const ProductTiles<kRows, kColumns> tiles{{kExperts, rows, offsets.data()}, kWidth, 5};
  std::vector<Tile> found(static_cast<size_t>(tiles.most()) + 1);
  int count = 0;
  launch(findKernel<kRows, kColumns>, {1}, 32, 0, nullptr, tiles, found.data(), &count);
  CHECK(count <= tiles.most());
  std::vector<int> covered(static_cast<size_t>(rows * 3));
  for (int i = 0; i < count; ++i) {
    const Tile& tile = found[static_cast<size_t>(i)];
    const auto e = static_cast<size_t>(tile.expert);
    CHECK(tile.rowEnd == offsets[e + 1] && (tile.row - offsets[e]) % kRows == 0);
    CHECK(tile.columnEnd == kWidth && tile.begin == 0 && tile.end == 5);
    for (int64_t row = tile.row; row < std::min(tile.row + kRows, tile.rowEnd); ++row)
      ++covered[static_cast<size_t>(row * 3 + tile.column / kColumns)];
  }
  for (const int times : covered) CHECK(times == 1);
}

NATIVE_TEST(productsAreExactEnough) {
  // Few rows: both layouts, several slices of the depth. Many rows: both layouts, several tiles.
  for (const bool transposeW : {false, true})
    for (const int64_t rows : {1, 7, 70}) {
      const Sizes sizes{rows, 2112, 40, transposeW};
      CHECK(errorOf<bf16>(sizes) < 1e-6);
      const double plainError = errorOfPlainF32(sizes);
      CHECK(errorOf<float>(sizes) < plainError + 1e-8);
    }
}
