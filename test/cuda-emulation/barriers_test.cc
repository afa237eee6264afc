// Barriers in memory, copies that arrive at them and products of warpgroups, each beside variants with a
// planted bug.
#include <vector>

#include "run.h"

namespace {

using namespace mf;
using namespace mf::cuda;

enum class Bug {
  None,
  NoFullWait,
  NoEmptyWait,
  FullParityStays,
  SumsBeforeWait,
  FreedTooEarly,
  FewerBytes,
  MoreBytes,
  TwoArrivals,
  NoInitFence,
  NoWarpgroupFence,
  NoProxyFence,
  Overrun,
  NoLastWait,
};

// d [64, 128] = a [64, 64 kRounds] b [128, 64 kRounds]^T: a warpgroup multiplies what a warp brings.
// `kThreads`: a comes by cp.async of that warp.
constexpr int kStages = 2, kRounds = 5, kDepth = 64 * kRounds;
constexpr int kA = 64 * 64, kB = 128 * 64;
constexpr size_t kShared = kStages * (kA + kB) * 2 + 1008;

template <Bug kBug, bool kByThreads>
MF_DEVICE void bring(const bf16* aRows, const TensorMap& a, const TensorMap& b, const SharedSpan<bf16>& left,
                     const SharedSpan<bf16>& right, const SharedSpan<uint64_t>& full,
                     const SharedSpan<uint64_t>& empty) {
  const int lane = laneId();
  for (int round = 0; round < kRounds; ++round) {
    const int stage = round % kStages, parity = round / kStages % 2;
    if (kBug != Bug::NoEmptyWait) waitPhase(empty.at(stage), parity ^ 1);
    const SharedSpan<bf16> target = left.part(stage * kA, kA);
    if (lane == 0) {
      const int wrong = kBug == Bug::FewerBytes ? -kA * 2 : kBug == Bug::MoreBytes ? 64 : 0;
      arriveExpecting(full.at(stage), (kByThreads ? kB : kA + kB) * 2 + wrong);
      if (kBug == Bug::TwoArrivals && round == 1) arrive(full.at(stage));
      copyTensor(kBug == Bug::Overrun && round == 1 ? right.at(kB + kA) : right.at(stage * kB), b, round * 64,
                 0, 0, full.at(stage));
      if (!kByThreads) copyTensor(target.at(0), a, round * 64, 0, 0, full.at(stage));
    }
    if (!kByThreads) continue;
    for (int i = lane; i < 64 * 8; i += 32)
      copyAsync16(target.at(i / 8 * 64 + (i % 8 ^ i / 8 % 8) * 8),
                  aRows + i / 8 * kDepth + round * 64 + i % 8 * 8, 16);
    arriveAfterCopies(full.at(stage));
  }
}

template <Bug kBug, bool kByThreads>
MF_KERNEL void ringKernel(const bf16* aRows, MF_PARAMETER(TensorMap) a, MF_PARAMETER(TensorMap) b, float* d) {
  MF_SHARED(uint64_t, full, kStages);
  MF_SHARED(uint64_t, empty, kStages);
  DynamicShared memory;
  const SharedSpan<bf16> left = memory.take<bf16>(kStages * kA, 1024),
                         right = memory.take<bf16>(kStages * kB, 1024);
  if (threadId() == 0) {
    for (int i = 0; i < kStages; ++i) {
      initBarrier(full.at(i), kByThreads ? 33 : 1);
      initBarrier(empty.at(i), 4);
    }
    if (kBug != Bug::NoInitFence) fenceBarriers();
  }
  syncThreads();
  if (warpId() == 4) return bring<kBug, kByThreads>(aRows, a, b, left, right, full, empty);
  float sums[16][4];
  const auto descriptor = [](const bf16* p) {
    return sharedAddress(p) / 16 | uint64_t{1} << 16 | uint64_t{64} << 32 | uint64_t{1} << 62;
  };
  for (int round = 0; round < kRounds; ++round) {
    const int stage = round % kStages, parity = round / kStages % 2;
    if (kBug != Bug::NoFullWait) waitPhase(full.at(stage), kBug == Bug::FullParityStays ? 0 : parity);
    if (kByThreads && kBug != Bug::NoProxyFence) fenceProxy();
    if (kBug != Bug::NoWarpgroupFence) fenceWarpgroup();
    for (int step = 0; step < 4; ++step)
      multiplyWarpgroup<false, false>(sums, descriptor(left.at(stage * kA)) + step * 2,
                                      descriptor(right.at(stage * kB)) + step * 2, round > 0 || step > 0);
    commitWarpgroup();
    waitWarpgroup<1>();
    if (laneId() != 0) continue;
    if (kBug == Bug::FreedTooEarly)
      arrive(empty.at(stage));
    else if (round > 0)
      arrive(empty.at((round - 1) % kStages));
  }
  if (kBug != Bug::SumsBeforeWait && kBug != Bug::NoLastWait) waitWarpgroup<0>();
  if (kBug != Bug::NoLastWait)
    for (int i = 0; i < 64; ++i)
      d[(warpId() * 16 + laneId() / 4 + i % 4 / 2 * 8) * 128 + i / 4 * 8 + laneId() % 4 * 2 + i % 2] =
          sums[i / 4][i % 4];
  if (kBug == Bug::SumsBeforeWait) waitWarpgroup<0>();
}

template <Bug kBug, bool kByThreads = false>
void ring() {
  std::vector<bf16> a(64 * kDepth), b(128 * kDepth);
  for (size_t i = 0; i < a.size(); ++i) a[i] = bf16(static_cast<float>(i * 7 % 5) - 2);
  for (size_t i = 0; i < b.size(); ++i) b[i] = bf16(static_cast<float>(i * 11 % 7) - 3);
  std::vector<float> d(64 * 128, -1);
  launch(ringKernel<kBug, kByThreads>, {1}, 160, kShared, nullptr, a.data(),
         makeTensorMap({a.data(), kDepth, 64, 1, kDepth, 64 * kDepth}, 64),
         makeTensorMap({b.data(), kDepth, 128, 1, kDepth, 128 * kDepth}, 128), d.data());
  for (size_t m = 0; m < 64; ++m)
    for (size_t n = 0; n < 128; ++n) {
      float sum = 0;
      for (size_t k = 0; k < kDepth; ++k)
        sum += static_cast<float>(a[m * kDepth + k]) * static_cast<float>(b[n * kDepth + k]);
      CHECK(d[m * 128 + n] == sum);
    }
}

// The bug is found under every schedule, and with late copies it is called by name (where the order of
// arrivals decides which of its consequences is met first, by any).
template <Bug kBug, bool kByThreads = false>
bool isFound(const char* name) {
  bool found = true;
  underEverySchedule([&] {
    const std::string text = complaint(ring<kBug, kByThreads>);
    if (text.empty() || (emulation::schedule().lateCopies && !contains(text, name))) {
      std::printf("     instead of '%s': %s\n", name, text.c_str());
      found = false;
    }
  });
  return found;
}

// One warp hands numbers to another, and gets them back doubled, through one place each.
MF_KERNEL void handOverKernel(int* out, int rounds) {
  MF_SHARED(uint64_t, there, 1);
  MF_SHARED(uint64_t, back, 1);
  MF_SHARED(int, value, 32);
  if (threadId() == 0) {
    initBarrier(there.at(0), 32);
    initBarrier(back.at(0), 32);
  }
  syncThreads();
  for (int round = 0; round < rounds; ++round) {
    if (warpId() == 0) {
      value[laneId()] = round * 100 + laneId();
      arrive(there.at(0));
      waitPhase(back.at(0), round % 2);
      out[round * 32 + laneId()] = value[laneId()];
    } else {
      waitPhase(there.at(0), round % 2);
      value[31 - laneId()] *= 2;
      arrive(back.at(0));
    }
  }
}

template <bool kFenced>
MF_KERNEL void writtenMatrixKernel() {
  DynamicShared memory;
  const SharedSpan<bf16> matrix = memory.take<bf16>(kB, 1024);
  for (int i = threadId(); i < kB; i += 128) matrix[i] = bf16(1.0f);
  if (kFenced) fenceProxy();
  syncThreads();
  float sums[16][4];
  const uint64_t descriptor =
      sharedAddress(matrix.at(0)) / 16 | uint64_t{1} << 16 | uint64_t{64} << 32 | uint64_t{1} << 62;
  fenceWarpgroup();
  multiplyWarpgroup<false, false>(sums, descriptor, descriptor, false);
  commitWarpgroup();
  waitWarpgroup<0>();
}

template <bool kWrite>
MF_KERNEL void touchedSumsKernel(float* out) {
  DynamicShared memory;
  const SharedSpan<bf16> matrix = memory.take<bf16>(kB, 1024);
  for (int i = threadId(); i < kB; i += 128) matrix[i] = bf16(1.0f);
  fenceProxy();
  syncThreads();
  float sums[16][4];
  const uint64_t descriptor =
      sharedAddress(matrix.at(0)) / 16 | uint64_t{1} << 16 | uint64_t{64} << 32 | uint64_t{1} << 62;
  fenceWarpgroup();
  multiplyWarpgroup<false, false>(sums, descriptor, descriptor, false);
  commitWarpgroup();
  if (kWrite)
    sums[3][2] = 0;
  else
    out[threadId()] = sums[3][2];
  waitWarpgroup<0>();
  out[threadId()] = sums[3][2];
}

template <int kFewer, int kMore>
MF_KERNEL void registersKernel() {
  if (warpId() < 4)
    lowerRegisters<kFewer>();
  else
    raiseRegisters<kMore>();
}

}  // namespace

NATIVE_TEST(barriersOrderWhatTheirPhasesSeparate) {
  underEverySchedule([] {
    std::vector<int> out(7 * 32);
    launch(handOverKernel, {1}, 64, 0, nullptr, out.data(), 7);
    for (int i = 0; i < 7 * 32; ++i) CHECK(out[static_cast<size_t>(i)] == 2 * (i / 32 * 100 + i % 32));
  });
}

NATIVE_TEST(aRingOfStagesThatIsRightPasses) {
  underEverySchedule([] {
    ring<Bug::None>();
    ring<Bug::None, true>();
  });
}

NATIVE_TEST(aRingWithoutItsWaitsIsARace) {
  CHECK(isFound<Bug::NoFullWait>("race"));
  CHECK(isFound<Bug::NoEmptyWait>("more arrivals than the 1"));
  CHECK((isFound<Bug::NoFullWait, true>("race")));
  CHECK((isFound<Bug::NoEmptyWait, true>("")));
  CHECK(isFound<Bug::FreedTooEarly>("race"));
  CHECK((isFound<Bug::FreedTooEarly, true>("")));
  CHECK(!complaint(ring<Bug::FullParityStays>).empty());
}

NATIVE_TEST(sumsBeforeTheirWaitAreFound) {
  CHECK(isFound<Bug::SumsBeforeWait>("sums of a product are touched"));
  CHECK(isFound<Bug::NoLastWait>("without wgmma.wait_group"));
  std::vector<float> out(128);
  for (auto* kernel : {touchedSumsKernel<false>, touchedSumsKernel<true>})
    CHECK(contains(complaint([&] { launch(kernel, {1}, 128, kB * 2 + 1008, nullptr, out.data()); }), "sums"));
}

NATIVE_TEST(bytesMiscountedAreFound) {
  CHECK(isFound<Bug::FewerBytes>(""));
  CHECK(isFound<Bug::MoreBytes>("misses 0 arrivals and 64 bytes"));
  CHECK(!complaint(ring<Bug::TwoArrivals>).empty());
}

NATIVE_TEST(fencesLeftOutAreFound) {
  CHECK(isFound<Bug::NoInitFence>("fence.mbarrier_init"));
  CHECK(isFound<Bug::NoWarpgroupFence>("without wgmma.fence"));
  CHECK((isFound<Bug::NoProxyFence, true>("without fence.proxy.async")));
  const auto written = [](void (*kernel)()) {
    return complaint([&] { launch(kernel, {1}, 128, kB * 2 + 1008, nullptr); });
  };
  CHECK(written(writtenMatrixKernel<true>).empty());
  CHECK(contains(written(writtenMatrixKernel<false>), "without fence.proxy.async"));
}

NATIVE_TEST(aBulkCopyBeyondItsArrayIsFound) {
  CHECK(isFound<Bug::Overrun>("outside its array"));
}

// 384 threads begin with at most 168 registers each.
NATIVE_TEST(registersMoveWithinTheirLimits) {
  const auto moved = [](void (*kernel)()) {
    return complaint([&] { launch(kernel, {1}, 384, 0, nullptr); });
  };
  CHECK(moved(registersKernel<40, 232>).empty());
  CHECK(contains(moved(registersKernel<40, 248>), "68608 registers, at most 65536"));
  CHECK(contains(moved(registersKernel<176, 232>), "in the wrong direction"));
  CHECK(contains(moved(registersKernel<44, 232>), "a multiple of 8"));
}
