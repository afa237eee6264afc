// Fragment layouts, written down from the PTX manual ("Matrix Fragments for mma.m16n8k16 / .m16n8k8" and
// "ldmatrix"): nothing here is shared with the emulator.
#include <cstring>
#include <vector>

#include "run.h"

namespace {

using namespace mf;
using namespace mf::cuda;

float small(int i) {
  return static_cast<float>((i * 37 + 11) % 17 - 8) / 4;
}

struct Matrices {
  std::vector<float> a, b, d;
  int K;
  explicit Matrices(int depth) : a(16 * depth), b(depth * 8), d(16 * 8, 0.5f), K(depth) {
    for (size_t i = 0; i < a.size(); ++i) a[i] = small(static_cast<int>(i));
    for (size_t i = 0; i < b.size(); ++i) b[i] = small(static_cast<int>(i) * 5 + 3);
  }
  // d = 0.5 + a b, exact in these numbers.
  bool isProduct(const std::vector<float>& result) const {
    for (int m = 0; m < 16; ++m)
      for (int n = 0; n < 8; ++n) {
        float sum = 0.5f;
        for (int k = 0; k < K; ++k) sum += a[m * K + k] * b[k * 8 + n];
        if (sum != result[m * 8 + n]) return false;
      }
    return true;
  }
};

uint32_t packed(float low, float high) {
  return bf16(low).bits | static_cast<uint32_t>(bf16(high).bits) << 16;
}
uint32_t bitsOf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

// "row = groupID for ci where i < 2, groupID + 8 for i >= 2; col = (threadID_in_group * 2) + (i & 0x1)"
template <typename F>
void forAccumulator(int lane, F f) {
  const int groupId = lane >> 2, threadInGroup = lane % 4;
  for (int i = 0; i < 4; ++i) f(i, i < 2 ? groupId : groupId + 8, threadInGroup * 2 + (i & 1));
}

MF_KERNEL void bf16Kernel(const float* a, const float* b, float* d) {
  const int lane = threadId(), groupId = lane >> 2, threadInGroup = lane % 4;
  float left[8], right[4], sums[4];
  for (int i = 0; i < 8; ++i) {
    const int row = (i >= 0 && i < 2) || (i >= 4 && i < 6) ? groupId : groupId + 8;
    const int column = i < 4 ? threadInGroup * 2 + (i & 1) : threadInGroup * 2 + (i & 1) + 8;
    left[i] = a[row * 16 + column];
  }
  for (int i = 0; i < 4; ++i) {
    const int row = i < 2 ? threadInGroup * 2 + (i & 1) : threadInGroup * 2 + (i & 1) + 8;
    right[i] = b[row * 8 + groupId];
  }
  forAccumulator(lane, [&](int i, int row, int column) { sums[i] = d[row * 8 + column]; });
  const uint32_t leftWords[4] = {packed(left[0], left[1]), packed(left[2], left[3]), packed(left[4], left[5]),
                                 packed(left[6], left[7])};
  const uint32_t rightWords[2] = {packed(right[0], right[1]), packed(right[2], right[3])};
  mmaBf16(sums, leftWords, rightWords);
  forAccumulator(lane, [&](int i, int row, int column) { d[row * 8 + column] = sums[i]; });
}

MF_KERNEL void tf32Kernel(const float* a, const float* b, float* d) {
  const int lane = threadId(), groupId = lane >> 2, threadInGroup = lane % 4;
  uint32_t left[4], right[2];
  float sums[4];
  for (int i = 0; i < 4; ++i) {
    const int row = i == 0 || i == 2 ? groupId : groupId + 8;
    const int column = i < 2 ? threadInGroup : threadInGroup + 4;
    left[i] = bitsOf(a[row * 8 + column]);
  }
  for (int i = 0; i < 2; ++i)
    right[i] = bitsOf(b[(i == 0 ? threadInGroup : threadInGroup + 4) * 8 + groupId]);
  forAccumulator(lane, [&](int i, int row, int column) { sums[i] = d[row * 8 + column]; });
  mmaTf32(sums, left, right);
  forAccumulator(lane, [&](int i, int row, int column) { d[row * 8 + column] = sums[i]; });
}

// "Matrix Fragments for mma.m8n8k4 with .f64": a: row = groupID, col = threadID_in_group; b: row =
// threadID_in_group, col = groupID; c and d: row = groupID, col = (threadID_in_group * 2) + (i & 0x1).
MF_KERNEL void f64Kernel(const double* a, const double* b, double* d) {
  const int groupId = threadId() >> 2, threadInGroup = threadId() % 4;
  double* own = d + groupId * 8 + threadInGroup * 2;
  mmaF64(own[0], own[1], a[groupId * 4 + threadInGroup], b[threadInGroup * 8 + groupId]);
}

// "each thread receives a fragment of the row: thread i of a matrix elements of row i / 4, columns 2 (i % 4)
// and + 1"
MF_KERNEL void matrixKernel(uint32_t* plain, uint32_t* transposed) {
  MF_SHARED(bf16, tile, 32 * 8);
  for (int c = 0; c < 8; ++c) tile[threadId() * 8 + c].bits = static_cast<uint16_t>(threadId() * 100 + c);
  syncThreads();
  uint32_t words[4];
  loadMatrix4(words, tile.at(threadId() * 8));
  for (int m = 0; m < 4; ++m) plain[threadId() * 4 + m] = words[m];
  loadMatrix4Transposed(words, tile.at(threadId() * 8));
  for (int m = 0; m < 4; ++m) transposed[threadId() * 4 + m] = words[m];
}

}  // namespace

NATIVE_TEST(mmaMultipliesFragmentsOfTheManual) {
  underEverySchedule([] {
    Matrices m(16);
    launch(bf16Kernel, {1}, 32, 0, nullptr, m.a.data(), m.b.data(), m.d.data());
    CHECK(m.isProduct(m.d));
    Matrices n(8);
    launch(tf32Kernel, {1}, 32, 0, nullptr, n.a.data(), n.b.data(), n.d.data());
    CHECK(n.isProduct(n.d));
  });
}

NATIVE_TEST(mmaMultipliesDoubles) {
  underEverySchedule([] {
    std::vector<double> a(32), b(32), d(64, 0.5);
    for (int i = 0; i < 32; ++i) {
      a[i] = small(i);
      b[i] = small(i * 5 + 3);
    }
    launch(f64Kernel, {1}, 32, 0, nullptr, a.data(), b.data(), d.data());
    for (int m = 0; m < 8; ++m)
      for (int n = 0; n < 8; ++n) {
        double sum = 0.5;
        for (int k = 0; k < 4; ++k) sum += a[m * 4 + k] * b[k * 8 + n];
        CHECK(d[m * 8 + n] == sum);
      }
  });
}

NATIVE_TEST(packBf16PutsTheFirstInTheLowerHalf) {
  CHECK(packBf16(1.0f, -2.0f) == packed(1.0f, -2.0f));
}

NATIVE_TEST(tf32DropsTheLower13Bits) {
  Matrices m(8);
  for (float& x : m.a) x = 1 + 1.0f / 4096;  // 12 bits behind the point: beyond what the tensor core reads
  Matrices rounded(8);
  for (float& x : rounded.a) x = 1;
  launch(tf32Kernel, {1}, 32, 0, nullptr, m.a.data(), m.b.data(), m.d.data());
  CHECK(rounded.isProduct(m.d));
}

NATIVE_TEST(ldmatrixHandsOutRowsAndColumns) {
  underEverySchedule([] {
    std::vector<uint32_t> plain(128), transposed(128);
    launch(matrixKernel, {1}, 32, 0, nullptr, plain.data(), transposed.data());
    for (uint32_t i = 0; i < 32; ++i)
      for (uint32_t m = 0; m < 4; ++m) {
        const uint32_t row = m * 8 + i / 4, column = 2 * (i % 4);
        CHECK(plain[i * 4 + m] == ((row * 100 + column) | (row * 100 + column + 1) << 16));
        const uint32_t k = m * 8 + 2 * (i % 4), outer = i / 4;
        CHECK(transposed[i * 4 + m] == ((k * 100 + outer) | ((k + 1) * 100 + outer) << 16));
      }
  });
}
