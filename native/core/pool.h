#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <type_traits>

namespace mf {

// The process's worker threads. One job runs at a time; a second stream that finds the pool busy works
// through its job alone. Which thread takes which task is not determined, so a task must write only what is
// its own.
class Pool {
 public:
  static Pool& instance();  // never destroyed: its threads live until the process ends

  // Threads that take part in a job, the caller's included.
  int threads() const { return threads_.load(std::memory_order_relaxed); }
  void setThreads(int count);

  // Calls body(task) for every task in [0, count), on this thread and the workers; returns when all are done.
  // The first exception a body throws is rethrown here; later tasks are then skipped.
  template <typename Body>
  void parallelFor(int64_t count, Body&& body) {
    using Function = std::remove_reference_t<Body>;
    run(count, const_cast<void*>(static_cast<const void*>(&body)),
        [](void* context, int64_t task) { (*static_cast<Function*>(context))(task); });
  }

 private:
  struct Job;
  using Invoke = void (*)(void*, int64_t);

  Pool();
  void run(int64_t count, void* context, Invoke invoke);
  void startWorkers(int count);
  void workerLoop(int index);
  static void work(Job& job);

  std::mutex owner_;          // held by the stream whose job runs
  std::atomic<int> threads_;  // wanted
  int started_ = 0;           // workers that exist; grows only, under owner_
  Job* job_ = nullptr;
  // bits 0-14: workers inside the job; bit 15: the job is open; from bit 16: the job's number.
  alignas(64) std::atomic<uint32_t> state_{0};
};

// Set by a stream for the work it runs; parallelFor skips the remaining tasks once it is true.
void setStopFlag(const std::atomic<bool>* flag);

// Memory of this thread, at least `bytes`, 64-byte aligned, kept until the thread ends. A later call may
// reuse it.
void* threadScratch(size_t bytes);

// The same apart from it: for what the tasks of this thread's job share while each of them uses its own.
void* jobScratch(size_t bytes);

}  // namespace mf
