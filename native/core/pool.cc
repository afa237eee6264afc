#include "core/pool.h"

#include <chrono>
#include <exception>
#include <new>
#include <thread>
#include <utility>

#include "core/pool_stats.h"

namespace mf {
namespace {

constexpr uint32_t kActive = 0x7fff;
constexpr uint32_t kOpen = 0x8000;
constexpr uint32_t kNumber = 0x10000;
constexpr auto kSpin = std::chrono::microseconds(200);  // a futex wake costs 8-80 us, a spinning worker 0.1

thread_local const std::atomic<bool>* stopFlag = nullptr;

inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

std::atomic<int64_t> jobs{0}, forkJoinNanoseconds{0};

// Adds the time since `start` to what forks and joins cost.
void spend(std::chrono::steady_clock::time_point start) {
  const auto now = std::chrono::steady_clock::now();
  forkJoinNanoseconds.fetch_add(std::chrono::duration_cast<std::chrono::nanoseconds>(now - start).count(),
                                std::memory_order_relaxed);
}

constexpr std::align_val_t kScratchAlignment{64};

class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { ::operator delete(memory_, kScratchAlignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  void* take(size_t bytes) {
    if (bytes > capacity_) {
      ::operator delete(std::exchange(memory_, nullptr), kScratchAlignment);
      capacity_ = 0;
      const size_t rounded = (bytes + 4095) / 4096 * 4096;
      memory_ = ::operator new(rounded, kScratchAlignment);
      capacity_ = rounded;
    }
    return memory_;
  }

 private:
  void* memory_ = nullptr;
  size_t capacity_ = 0;
};

}  // namespace

struct Pool::Job {
  int64_t count;
  void* context;
  Invoke invoke;
  const std::atomic<bool>* stop;
  std::atomic<int> seats;  // workers that may still join
  alignas(64) std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
};

void setStopFlag(const std::atomic<bool>* flag) {
  stopFlag = flag;
}

void* threadScratch(size_t bytes) {
  thread_local Scratch scratch;
  return scratch.take(bytes);
}

void* jobScratch(size_t bytes) {
  thread_local Scratch scratch;
  return scratch.take(bytes);
}

PoolStats poolStats() {
  return {jobs.load(std::memory_order_relaxed),
          1e-9 * static_cast<double>(forkJoinNanoseconds.load(std::memory_order_relaxed))};
}

Pool& Pool::instance() {
  static Pool* pool = new Pool();
  return *pool;
}

Pool::Pool() {
  const unsigned hardware = std::thread::hardware_concurrency();
  threads_.store(hardware == 0 ? 1 : static_cast<int>(hardware), std::memory_order_relaxed);
}

void Pool::setThreads(int count) {
  threads_.store(count, std::memory_order_relaxed);
}

void Pool::startWorkers(int count) {
  while (started_ < count) {
    std::thread(&Pool::workerLoop, this, started_).detach();
    ++started_;
  }
}

void Pool::work(Job& job) {
  for (;;) {
    const int64_t task = job.next.fetch_add(1, std::memory_order_relaxed);
    if (task >= job.count) return;
    if (job.failed.load(std::memory_order_relaxed)) return;
    if (job.stop && job.stop->load(std::memory_order_relaxed)) return;
    try {
      job.invoke(job.context, task);
    } catch (...) {
      if (!job.failed.exchange(true)) job.error = std::current_exception();
    }
  }
}

void Pool::run(int64_t count, void* context, Invoke invoke) {
  const int wanted = threads();
  if (count > 1 && wanted > 1 && owner_.try_lock()) {
    std::lock_guard<std::mutex> guard(owner_, std::adopt_lock);
    const auto fork = std::chrono::steady_clock::now();
    jobs.fetch_add(1, std::memory_order_relaxed);
    const int helpers = static_cast<int>(count - 1 < wanted - 1 ? count - 1 : wanted - 1);
    startWorkers(wanted - 1);
    Job job{count, context, invoke, stopFlag, helpers, {}, {}, {}};
    job_ = &job;
    const uint32_t before = state_.load(std::memory_order_relaxed);
    state_.store(((before & ~(kActive | kOpen)) + kNumber) | kOpen, std::memory_order_release);
    state_.notify_all();
    spend(fork);
    work(job);
    const auto join = std::chrono::steady_clock::now();
    uint32_t state = state_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spins = 0; (state & kActive) != 0; ++spins) {
      if (spins < 4096)
        pause();
      else
        std::this_thread::yield();
      state = state_.load(std::memory_order_acquire);
    }
    spend(join);
    if (job.error) std::rethrow_exception(job.error);
    return;
  }
  for (int64_t task = 0; task < count; ++task) {
    if (stopFlag && stopFlag->load(std::memory_order_relaxed)) return;
    invoke(context, task);
  }
}

void Pool::workerLoop(int) {
  uint32_t seen = 0;  // number of the last job looked at
  for (;;) {
    uint32_t state = state_.load(std::memory_order_acquire);
    auto idleSince = std::chrono::steady_clock::now();
    for (int spins = 1; (state & kOpen) == 0 || state / kNumber == seen; ++spins) {
      pause();
      if (spins % 256 == 0 && std::chrono::steady_clock::now() - idleSince > kSpin) {
        state_.wait(state, std::memory_order_acquire);
        idleSince = std::chrono::steady_clock::now();
      }
      state = state_.load(std::memory_order_acquire);
    }
    seen = state / kNumber;
    while ((state & kOpen) != 0 && state / kNumber == seen) {
      if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel)) continue;
      Job& job = *job_;
      if (job.seats.fetch_sub(1, std::memory_order_relaxed) > 0) work(job);
      state_.fetch_sub(1, std::memory_order_acq_rel);
      break;
    }
  }
}

}  // namespace mf
