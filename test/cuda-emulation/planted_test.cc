// Kernels with a planted bug, each beside the kernel that is right.
#include <cmath>
#include <vector>

#include "run.h"

namespace {

using namespace mf;
using namespace mf::cuda;

constexpr int kBlock = 64;

// out[i] = in[kBlock - 1 - i], through shared memory.
template <bool kBarrier>
MF_KERNEL void reverseKernel(const float* in, float* out) {
  MF_SHARED(float, row, kBlock);
  row[threadId()] = in[threadId()];
  if (kBarrier) syncThreads();
  out[threadId()] = row[kBlock - 1 - threadId()];
}

template <bool kBarrier>
void reverse() {
  std::vector<float> in(kBlock), out(kBlock, -1);
  for (int i = 0; i < kBlock; ++i) in[static_cast<size_t>(i)] = static_cast<float>(i);
  launch(reverseKernel<kBarrier>, {1}, kBlock, 0, nullptr, in.data(), out.data());
  for (int i = 0; i < kBlock; ++i)
    CHECK(out[static_cast<size_t>(i)] == in[static_cast<size_t>(kBlock - 1 - i)]);
}

// The warp's barrier orders its own lanes, not those of another warp.
template <bool kWhole>
MF_KERNEL void neighbourKernel(float* out) {
  MF_SHARED(float, row, kBlock);
  row[threadId()] = 1;
  syncWarp();
  out[threadId()] = row[kWhole ? (threadId() + 32) % kBlock : threadId() / 32 * 32 + (threadId() + 1) % 32];
}

// Two copies in flight; kPending says how many may still be when the first is read.
template <int kPending>
MF_KERNEL void copyKernel(const float* in, float* out) {
  MF_SHARED(float, first, 128);
  MF_SHARED(float, second, 128);
  copyAsync16(first.at(threadId() * 4), in + threadId() * 4, 16);
  commitCopies();
  copyAsync16(second.at(threadId() * 4), in + threadId() * 4, 8);
  commitCopies();
  waitCopies<kPending>();
  syncThreads();
  for (int i = 0; i < 4; ++i) out[threadId() * 4 + i] = first[threadId() * 4 + i];
  waitCopies<0>();
}

template <int kPending>
bool copies() {
  std::vector<float> in(128, 2), out(128, -1);
  launch(copyKernel<kPending>, {1}, 32, 0, nullptr, in.data(), out.data());
  for (const float x : out)
    if (x != 2) return false;
  return true;
}

MF_KERNEL void indexKernel(int index) {
  MF_SHARED(float, row, 32);
  row[index] = 0;
}
MF_KERNEL void overrunKernel(int index) {
  MF_SHARED(float, row, 32);
  float* raw = row.at(0);
  if (threadId() == 0) raw[index] = 0;
}
MF_KERNEL void unwrittenKernel(float* out) {
  MF_SHARED(float, row, 32);
  out[threadId()] = row[threadId()];
}
MF_KERNEL void divergentKernel() {
  if (threadId() < 32)
    syncThreads();
  else
    syncThreads();
}
MF_KERNEL void lonelyKernel() {
  if (threadId() == 0) ballot(true);
}
MF_KERNEL void exitedKernel() {
  if (threadId() % 32 == 31) return;
  ballot(true);
}
MF_KERNEL void misalignedKernel(const float* in) {
  MF_SHARED(float, row, 256);
  copyAsync16(row.at(threadId() * 4 + 1), in, 16);
}

}  // namespace

NATIVE_TEST(aKernelThatIsRightPasses) {
  underEverySchedule([] { reverse<true>(); });
}

NATIVE_TEST(aBarrierLeftOutIsARace) {
  underEverySchedule([] { CHECK(contains(complaint(reverse<false>), "race in shared memory")); });
}

NATIVE_TEST(aWarpsBarrierIsNotTheBlocks) {
  underEverySchedule([] {
    std::vector<float> out(kBlock);
    const auto run = [&](void (*kernel)(float*)) {
      return complaint([&] { launch(kernel, {1}, kBlock, 0, nullptr, out.data()); });
    };
    CHECK(run(neighbourKernel<false>).empty());
    CHECK(contains(run(neighbourKernel<true>), "race"));
  });
}

NATIVE_TEST(aWaitTooWeakReadsNaN) {
  using emulation::Schedule;
  Schedule& schedule = emulation::schedule();
  const Schedule before = schedule;
  schedule.lateCopies = true;
  CHECK(copies<0>());
  CHECK(copies<1>());
  CHECK(!copies<2>());
  schedule = before;
}

NATIVE_TEST(accessesOutsideAnArrayAreFound) {
  for (const int index : {-1, 32})
    CHECK(contains(complaint([&] { launch(indexKernel, {1}, 32, 0, nullptr, index); }),
                   "of a shared array of 32"));
  for (const int index : {-1, 32, 40})
    CHECK(contains(complaint([&] { launch(overrunKernel, {1}, 32, 0, nullptr, index); }),
                   "written outside a shared array"));
}

NATIVE_TEST(sharedMemoryBeginsAsNaN) {
  std::vector<float> out(32, 0);
  launch(unwrittenKernel, {2}, 32, 0, nullptr, out.data());
  for (const float x : out) CHECK(std::isnan(x));
}

NATIVE_TEST(threadsThatDoNotMeetAreFound) {
  CHECK(contains(complaint([] { launch(divergentKernel, {1}, 64, 0, nullptr); }), "different barriers"));
  CHECK(contains(complaint([] { launch(lonelyKernel, {1}, 32, 0, nullptr); }), "emulation"));
  CHECK(contains(complaint([] { launch(exitedKernel, {1}, 32, 0, nullptr); }), "emulation"));
}

NATIVE_TEST(misalignedCopiesAreFound) {
  std::vector<float> in(4);
  CHECK(
      contains(complaint([&] { launch(misalignedKernel, {1}, 32, 0, nullptr, in.data()); }), "not aligned"));
}

NATIVE_TEST(aComplaintNamesThreadAndLaunch) {
  const std::string found = complaint([] { launch(indexKernel, {2, 3}, 64, 128, nullptr, 99); });
  CHECK(contains(found, "thread 0"));
  CHECK(contains(found, "launch of [2, 3, 1] blocks of 64 threads with 128 bytes of shared memory"));
  CHECK(contains(complaint([] { launch(divergentKernel, {1}, 48, 0, nullptr); }), "48 threads, expected"));
  CHECK(contains(complaint([] { launch(divergentKernel, {1}, 32, 1 << 20, nullptr); }), "at most"));
}
