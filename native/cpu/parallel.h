#pragma once
// Splits loops into tasks whose bounds depend on the shape alone, never on the number of threads.
#include <algorithm>
#include <atomic>
#include <memory>

#include "core/pool.h"
#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {

// Elements per task of a memory-bound loop; smaller loops run on the calling thread.
constexpr int64_t kTaskElements = 16384;

// Calls f(begin, end) for consecutive blocks of `block` indices of [0, n).
template <typename F>
inline void forBlocks(int64_t n, int64_t block, F&& f) {
  Pool::instance().parallelFor((n + block - 1) / block, [&](int64_t task) {
    const int64_t begin = task * block, end = begin + block;
    f(begin, end < n ? end : n);
  });
}

template <typename F>
inline void forElements(int64_t n, F&& f) {
  forBlocks(n, kTaskElements, f);
}

// Calls f(begin, end) for groups of rows that hold about kTaskElements elements of work.
template <typename F>
inline void forRows(int64_t rows, int64_t width, F&& f) {
  forBlocks(rows, width >= kTaskElements ? 1 : kTaskElements / (width > 0 ? width : 1), f);
}

// Deals tasks [0, count) in shares of neighbouring ones, a share per thread; who has finished helps others.
class TaskShares {
 public:
  TaskShares(int64_t count, int64_t shares) : count_(count), shares_(shares), next_(new Next[shares]) {
    for (int64_t s = 0; s < shares; ++s) next_[s].task.store(begin(s), std::memory_order_relaxed);
  }
  // Calls body(task) for tasks of share `own`, then for what is left of the others.
  template <typename Body>
  void work(int64_t own, Body&& body) {
    for (int64_t i = 0; i < shares_; ++i) {
      const int64_t share = (own + i) % shares_, end = begin(share + 1);
      for (int64_t task; (task = next_[share].task.fetch_add(1, std::memory_order_relaxed)) < end;)
        body(task);
    }
  }

 private:
  struct alignas(64) Next {
    std::atomic<int64_t> task;
  };
  int64_t begin(int64_t share) const { return count_ * share / shares_; }

  int64_t count_, shares_;
  std::unique_ptr<Next[]> next_;
};

// Calls body(task) for tasks of neighbouring memory: each thread reads a stretch of it from end to end.
template <typename Body>
inline void forShares(int64_t tasks, Body&& body) {
  const int64_t shares = std::min<int64_t>(tasks, Pool::instance().threads());
  if (shares < 1) return;
  TaskShares dealt(tasks, shares);
  Pool::instance().parallelFor(shares, [&](int64_t share) { dealt.work(share, body); });
}

}  // namespace MF_CPU_NAMESPACE
