#pragma once
// What the libraries called once per expert share: the layer of MLP experts (its sizes and the experts' row
// counts come from the command line), the gathering of its rows, timing, and the JSON that is printed.
//   PROGRAM D F repeats count...
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

namespace peers {

using Clock = std::chrono::steady_clock;

template <typename Run>
double medianSeconds(int repeats, Run&& run) {
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

// A bf16 is the upper half of an f32.
inline void convert(float value, float& out) {
  out = value;
}
inline void convert(float value, uint16_t& out) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  out = static_cast<uint16_t>(bits >> 16);
}

template <typename T>
std::vector<T> uniform(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<T> values(n);
  for (T& value : values) convert(static_cast<float>(random()) / 0x80000000u - 1, value);
  return values;
}

// x, gathered, dx [R, D]; out, dy [R, F]; w, dw [E, D, F]. T is float, or uint16_t for bf16.
template <typename T>
struct Layer {
  int D, F, repeats;
  std::vector<int> counts;
  std::vector<T> x, w, dy, gathered, out, dx, dw;
  std::vector<int> source;  // rows lie in the order of the tokens; gathering them is part of the work

  Layer(int argc, char** argv) {
    if (argc < 5) std::fprintf(stderr, "usage: %s D F repeats count...\n", argv[0]), std::exit(2);
    D = std::atoi(argv[1]), F = std::atoi(argv[2]), repeats = std::atoi(argv[3]);
    for (int i = 4; i < argc; ++i) counts.push_back(std::atoi(argv[i]));
    const size_t E = counts.size(), R = static_cast<size_t>(std::accumulate(counts.begin(), counts.end(), 0));
    x = uniform<T>(R * D, 1), w = uniform<T>(E * D * F, 2), dy = uniform<T>(R * F, 3);
    gathered.resize(R * D), out.resize(R * F), dx.resize(R * D), dw.resize(E * D * F);
    source.resize(R);
    std::iota(source.begin(), source.end(), 0);
    std::shuffle(source.begin(), source.end(), std::mt19937(4));
  }

  size_t weight(size_t e) const { return e * D * F; }

  void gather() {
    for (size_t r = 0; r < source.size(); ++r)
      std::memcpy(&gathered[r * D], &x[static_cast<size_t>(source[r]) * D], D * sizeof(T));
  }

  // body(e, first row, rows) for each expert that has rows.
  template <typename Body>
  void forEachExpert(Body&& body) const {
    size_t begin = 0;
    for (size_t e = 0; e < counts.size(); begin += counts[e++])
      if (counts[e] > 0) body(e, begin, counts[e]);
  }

  // Times the three products, each given for one expert, and prints them with the library's description.
  template <typename Forward, typename InputGrad, typename WeightGrad>
  void measure(const char* library, Forward&& forward, InputGrad&& inputGrad, WeightGrad&& weightGrad) {
    const double seconds[3] = {medianSeconds(repeats, [&] { gather(), forEachExpert(forward); }),
                               medianSeconds(repeats, [&] { forEachExpert(inputGrad); }),
                               medianSeconds(repeats, [&] { forEachExpert(weightGrad); })};
    std::printf("{\"library\": \"%s\", \"forward\": %.6g, \"dx\": %.6g, \"dw\": %.6g}\n", library, seconds[0],
                seconds[1], seconds[2]);
  }
};

}  // namespace peers
