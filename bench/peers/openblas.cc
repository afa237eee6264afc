// OpenBLAS called once per expert on gathered rows, as one would without a grouped GEMM: f32, the products of
// a layer of MLP experts. Reads the experts' row counts from the command line; prints JSON.
//   openblas D F repeats count...
#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

extern "C" char* openblas_get_corename(void);
extern "C" char* openblas_get_config(void);

namespace {

using Clock = std::chrono::steady_clock;

template <typename F>
double medianSeconds(int repeats, F&& run) {
  std::vector<double> seconds;
  run();
  for (int i = 0; i < repeats; ++i) {
    const auto start = Clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

std::vector<float> uniform(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> draw(-1, 1);
  std::vector<float> values(n);
  for (float& value : values) value = draw(random);
  return values;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return std::fprintf(stderr, "usage: openblas D F repeats count...\n"), 2;
  const int D = std::atoi(argv[1]), F = std::atoi(argv[2]), repeats = std::atoi(argv[3]);
  std::vector<int> counts;
  for (int i = 4; i < argc; ++i) counts.push_back(std::atoi(argv[i]));
  const size_t E = counts.size(), R = static_cast<size_t>(std::accumulate(counts.begin(), counts.end(), 0));
  const std::vector<float> x = uniform(R * D, 1), w = uniform(E * D * F, 2), dy = uniform(R * F, 3);
  std::vector<int> source(R);  // rows lie in the order of the tokens; gathering them is part of the work
  std::iota(source.begin(), source.end(), 0);
  std::shuffle(source.begin(), source.end(), std::mt19937(4));
  std::vector<float> gathered(R * D), out(R * F), dx(R * D), dw(E * D * F);

  const auto forEachExpert = [&](auto&& body) {
    size_t begin = 0;
    for (size_t e = 0; e < E; begin += counts[e++])
      if (counts[e] > 0) body(e, begin, counts[e]);
  };
  const double forward = medianSeconds(repeats, [&] {
    for (size_t r = 0; r < R; ++r)
      std::memcpy(&gathered[r * D], &x[size_t(source[r]) * D], D * sizeof(float));
    forEachExpert([&](size_t e, size_t begin, int n) {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, F, D, 1, &gathered[begin * D], D,
                  &w[e * D * F], F, 0, &out[begin * F], F);
    });
  });
  const double inputGrad = medianSeconds(repeats, [&] {
    forEachExpert([&](size_t e, size_t begin, int n) {
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, D, F, 1, &dy[begin * F], F, &w[e * D * F], F, 0,
                  &dx[begin * D], D);
    });
  });
  const double weightGrad = medianSeconds(repeats, [&] {
    forEachExpert([&](size_t e, size_t begin, int n) {
      cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, D, F, n, 1, &gathered[begin * D], D,
                  &dy[begin * F], F, 0, &dw[e * D * F], F);
    });
  });
  std::printf("{\"kernel\": \"%s\", \"config\": \"%s\", \"forward\": %.6g, \"dx\": %.6g, \"dw\": %.6g}\n",
              openblas_get_corename(), openblas_get_config(), forward, inputGrad, weightGrad);
}
