#include <atomic>
#include <numeric>
#include <thread>

#include "check.h"
#include "core/pool.h"

using mf::Pool;

static std::vector<int64_t> squares(int64_t count) {
  std::vector<int64_t> out(static_cast<size_t>(count), -1);
  Pool::instance().parallelFor(count, [&](int64_t i) { out[static_cast<size_t>(i)] = i * i; });
  return out;
}

NATIVE_TEST(everyTaskRunsOnceForAnyNumberOfThreads) {
  for (int threads : {1, 2, 3, 8}) {
    Pool::instance().setThreads(threads);
    for (int64_t count : {0, 1, 2, 7, 1000}) {
      const auto out = squares(count);
      for (int64_t i = 0; i < count; ++i) CHECK(out[static_cast<size_t>(i)] == i * i);
    }
  }
  Pool::instance().setThreads(2);
}

NATIVE_TEST(manySmallJobsInARow) {
  for (int repeat = 0; repeat < 5000; ++repeat) {
    std::atomic<int64_t> sum{0};
    Pool::instance().parallelFor(4, [&](int64_t i) { sum += i; });
    CHECK(sum == 6);
  }
}

NATIVE_TEST(workersSleepAndWake) {
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    CHECK(squares(50).back() == 49 * 49);
  }
}

NATIVE_TEST(anExceptionReachesTheCaller) {
  bool caught = false;
  try {
    Pool::instance().parallelFor(100, [](int64_t i) {
      if (i == 37) throw std::runtime_error("thirty-seven");
    });
  } catch (const std::runtime_error& error) {
    caught = std::string(error.what()) == "thirty-seven";
  }
  CHECK(caught);
  CHECK(squares(10).back() == 81);
}

NATIVE_TEST(severalCallersShareThePool) {
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 300; ++repeat)
        if (squares(64).back() != 63 * 63) ++wrong;
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0);
}

NATIVE_TEST(aStopFlagSkipsTheRest) {
  std::atomic<bool> stop{false};
  mf::setStopFlag(&stop);
  std::atomic<int64_t> ran{0};
  Pool::instance().parallelFor(100000, [&](int64_t) {
    if (++ran == 10) stop = true;
  });
  mf::setStopFlag(nullptr);
  CHECK(ran < 100000);
}

NATIVE_TEST(scratchIsAlignedAndGrows) {
  auto* small = static_cast<char*>(mf::threadScratch(100));
  CHECK(reinterpret_cast<uintptr_t>(small) % 64 == 0);
  auto* large = static_cast<char*>(mf::threadScratch(1 << 20));
  large[(1 << 20) - 1] = 1;
  CHECK(mf::threadScratch(10) == large);
}
