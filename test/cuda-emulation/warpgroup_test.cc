// Where wgmma expects its matrices and leaves its sums, and where bulk tensor copies put a box, written down
// from the PTX manual: nothing here is shared with the emulator.
#include <algorithm>
#include <vector>

#include "run.h"

namespace {

using namespace mf;
using namespace mf::cuda;

float small(int i) {
  return static_cast<float>((i * 37 + 11) % 17 - 8) / 4;
}

// "Canonical Layouts" of 128-byte swizzling with T = 128 / 16 elements, in elements:
// K-major ((8, m), (T, 2k)) : ((8T, SBO), (1, T)), MN-major ((T, 8, m), (8, k)) : ((1, T, LBO), (8T, SBO)).
// Swizzle<3, 4, 3>: of the byte address, bits 4 to 6 are exchanged by bits 7 to 9.
struct Layout {
  bool mnMajor;
  int leading, stride, start;  // in bytes
  MF_DEVICE int element(int outer, int k) const {
    const int T = 8;
    const int plain = mnMajor ? outer % T + outer / T % 8 * T + outer / (8 * T) * (leading / 2) +
                                    k % 8 * 8 * T + k / 8 * (stride / 2)
                              : outer % 8 * 8 * T + outer / 8 * (stride / 2) + k % T + k / T * T;
    const int byte = start + plain * 2;
    return (byte ^ (byte >> 7 & 7) << 4) / 2;
  }
  // "Matrix Descriptor Format": bits 13-0 address, 29-16 leading and 45-32 stride offset, each (x & 0x3FFFF)
  // >> 4; 63-62: 1 is 128-byte swizzling.
  MF_DEVICE uint64_t descriptor(uint32_t base) const {
    const auto encode = [](uint64_t x) { return (x & 0x3FFFF) >> 4; };
    return encode(base + static_cast<uint64_t>(start)) | encode(static_cast<uint64_t>(leading)) << 16 |
           encode(static_cast<uint64_t>(stride)) << 32 | uint64_t{1} << 62;
  }
};

constexpr int kSpan = 16 * 1024;  // elements of an operand's memory

template <int N, bool kTransposeA, bool kTransposeB>
MF_KERNEL void productKernel(const float* a, const float* b, float* d, Layout left, Layout right, bool add) {
  DynamicShared memory;
  const SharedSpan<bf16> A = memory.take<bf16>(kSpan, 1024), B = memory.take<bf16>(kSpan, 1024);
  const int thread = threadId();
  for (int i = thread; i < 64 * 16; i += 128) A[left.element(i / 16, i % 16)] = bf16(a[i]);
  for (int i = thread; i < N * 16; i += 128) B[right.element(i % N, i / N)] = bf16(b[i]);
  fenceProxy();
  syncThreads();
  // "Matrix Fragments for wgmma.mma_async.m64nNk16": warp w has rows 16 w to 16 w + 15; of register i, row
  // groupID, or groupID + 8 where i % 4 > 1, and column 8 (i / 4) + 2 threadID_in_group + i % 2.
  const int groupId = thread % 32 >> 2, threadInGroup = thread % 4;
  float sums[N / 8][4];
  const auto place = [&](int i) {
    const int row = thread / 32 * 16 + groupId + (i % 4 > 1 ? 8 : 0);
    return row * N + i / 4 * 8 + threadInGroup * 2 + i % 2;
  };
  for (int i = 0; i < N / 2; ++i) sums[i / 4][i % 4] = d[place(i)];
  fenceWarpgroup();
  multiplyWarpgroup<kTransposeA, kTransposeB>(sums, left.descriptor(sharedAddress(A.at(0))),
                                              right.descriptor(sharedAddress(B.at(0))), add);
  commitWarpgroup();
  waitWarpgroup<0>();
  for (int i = 0; i < N / 2; ++i) d[place(i)] = sums[i / 4][i % 4];
}

template <int N, bool kTransposeA, bool kTransposeB>
void checkProduct(Layout left, Layout right) {
  for (const bool add : {false, true}) {
    std::vector<float> a(64 * 16), b(16 * N), d(64 * N, 0.5f);
    for (size_t i = 0; i < a.size(); ++i) a[i] = small(static_cast<int>(i));
    for (size_t i = 0; i < b.size(); ++i) b[i] = small(static_cast<int>(i) * 5 + 3);
    launch(productKernel<N, kTransposeA, kTransposeB>, {1}, 128, kSpan * 4 + 1008, nullptr, a.data(),
           b.data(), d.data(), left, right, add);
    for (int m = 0; m < 64; ++m)
      for (int n = 0; n < N; ++n) {
        float sum = add ? 0.5f : 0.0f;  // exact in these numbers
        for (int k = 0; k < 16; ++k) sum += a[m * 16 + k] * b[k * N + n];
        CHECK(d[m * N + n] == sum);
      }
  }
}

constexpr int kBoxRows = 24;

MF_KERNEL void boxKernel(MF_PARAMETER(TensorMap) map, int x, int y, int z, uint16_t* out) {
  MF_SHARED(uint64_t, barrier, 1);
  DynamicShared memory;
  const SharedSpan<bf16> box = memory.take<bf16>(kBoxRows * 64, 1024);
  if (threadId() == 0) {
    initBarrier(barrier.at(0), 1);
    fenceBarriers();
  }
  syncThreads();
  if (threadId() == 0) {
    arriveExpecting(barrier.at(0), kBoxRows * 128);
    copyTensor(box.at(0), map, x, y, z, barrier.at(0));
  }
  waitPhase(barrier.at(0), 0);
  for (int i = threadId(); i < kBoxRows * 64; i += 32) out[i] = box[i].bits;
}

}  // namespace

NATIVE_TEST(warpgroupsMultiplyMatricesOfTheManual) {
  const Layout rows{false, 16, 1024, 0}, sparse{false, 16, 1536, 0}, second{false, 16, 1024, 32},
      last{false, 16, 1024, 96};
  checkProduct<128, false, false>(rows, rows);
  checkProduct<128, false, false>(second, last);
  checkProduct<256, false, false>(last, second);
  // MN-major: panels of 64 and groups of eight of the depth, either of them nearer.
  const Layout panels{true, 8192, 1024, 0}, groups{true, 1024, 4096, 0}, deeper{true, 4096, 1024, 2048};
  checkProduct<128, false, true>(second, panels);
  checkProduct<256, false, true>(rows, groups);
  checkProduct<128, true, true>(deeper, panels);
  checkProduct<256, true, false>(groups, rows);
  // What a pattern's stride is, counts in 1024 bytes only, else rows would be swizzled otherwise than they
  // lie.
  underEverySchedule([&] { checkProduct<128, true, true>(groups, deeper); });
  CHECK(sparse.descriptor(0) >> 32 == (uint64_t{1} << 30 | 96));
}

// "the 16-byte chunk j of row i lies at j ^ (i % 8)" in a box of 128-byte rows; elements outside the tensor
// are 0.
NATIVE_TEST(bulkCopiesSwizzleAndFillWithZeros) {
  constexpr int64_t kWidth = 80, kRows = 40, kPlanes = 3, kStride = 88, kPlane = kStride * 41;
  std::vector<uint16_t> tensor(static_cast<size_t>(kPlane * kPlanes));
  for (size_t i = 0; i < tensor.size(); ++i) tensor[i] = static_cast<uint16_t>(i + 1);
  const TensorMap map = makeTensorMap({tensor.data(), kWidth, kRows, kPlanes, kStride, kPlane}, kBoxRows);
  struct Corner {
    int x, y, z;
  };
  underEverySchedule([&] {
    for (const Corner corner : {Corner{0, 0, 0}, {16, 8, 2}, {64, 32, 1}, {-8, -4, 0}, {8, 0, 3}}) {
      std::vector<uint16_t> out(kBoxRows * 64, 77);
      launch(boxKernel, {1}, 32, kBoxRows * 128 + 1008, nullptr, map, corner.x, corner.y, corner.z,
             out.data());
      for (int i = 0; i < kBoxRows; ++i)
        for (int c = 0; c < 64; ++c) {
          const int64_t x = corner.x + c, y = corner.y + i;
          const bool inside = x >= 0 && x < kWidth && y >= 0 && y < kRows && corner.z < kPlanes;
          const uint16_t expected =
              inside ? tensor[static_cast<size_t>(corner.z * kPlane + y * kStride + x)] : uint16_t{0};
          CHECK(out[static_cast<size_t>(i * 64 + (c / 8 ^ i % 8) * 8 + c % 8)] == expected);
        }
    }
  });
}
