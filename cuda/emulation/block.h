#pragma once
// One CUDA thread block on one OS thread: a fiber per thread, barriers, warp exchanges, shared memory that is
// poisoned, fenced and checked. Everything that a kernel can wait for switches to the next fiber that may
// run.
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda/emulation/barriers.h"
#include "cuda/emulation/fiber.h"
#include "cuda/emulation/race.h"
#include "cuda/emulation/warpgroups.h"

namespace mf::cuda::emulation {

constexpr int kWarp = 32;
constexpr size_t kRedzone = 64;

// How the scheduler orders what CUDA leaves open; from the environment variables MODULEFORMER_EMULATION_ORDER
// (forward, reverse or random:SEED) and MODULEFORMER_EMULATION_COPIES (late or early).
struct Schedule {
  enum class Order { Forward, Reverse, Random } order = Order::Forward;
  uint64_t seed = 0;
  bool lateCopies = true;
};
Schedule& schedule();

struct Index {
  int x = 0, y = 0, z = 0;
};

struct Launch {
  Index grid;
  int threads = 0;
  size_t shared = 0;  // dynamic
  std::function<void()> body;
  const void* kernel = nullptr;
};

// A cp.async that no one has waited for.
struct PendingCopy {
  void* target;
  const void* source;
  size_t bytes, filled;  // of the target's bytes those that come from the source; the rest become 0
  bool arrived = false;  // at once, with early copies
  void finish() const;
};

struct Thread {
  enum class State { Ready, Barrier, Warp, Phase, Done };
  Fiber fiber;
  int index = 0;
  State state = State::Ready;
  int line = 0;                    // of the wrapper that it waits in
  const void* waitsFor = nullptr;  // the barrier in memory, in state Phase
  uint32_t exchanges = 0;
  std::deque<PendingCopy> open;                // not committed
  std::deque<std::deque<PendingCopy>> groups;  // committed, oldest first
};

class Block {
 public:
  static Block& ofThisThread();  // this OS thread's, made at its first launch
  static Block* running();       // null outside kernels
  static Thread& thread() { return *running()->current_; }

  // Runs all threads of one block; throws mf::Error(Kernel) for what the emulator finds wrong.
  void run(const Launch& launch, Index index);

  const Launch& launch() const { return *launch_; }
  Index index() const { return index_; }

  void barrier(int line);
  // Hands `bytes` (at most kSlot) of this lane to the others; returns the slots of the whole warp, kSlot
  // apart, valid until this lane's next exchange.
  static constexpr size_t kSlot = 64;
  const char* exchange(const void* value, size_t bytes, int line);
  void syncWarp(int line);

  void copyAsync(PendingCopy copy);
  void commitCopies();
  void waitCopies(int pending);

  // The static shared array that `key` names: one per block.
  void* sharedArray(const void* key, size_t bytes, size_t alignment);
  char* dynamicShared() { return arena_ + kRedzone; }
  // Fails unless [p, p + bytes) lies in one shared array and p is aligned.
  void checkShared(const void* p, size_t bytes, size_t alignment) const;
  // Called for the memory accesses of kernel files that are compiled with MF_CUDA_RACES; fails at the next
  // switch.
  void noteAccess(const void* p, size_t bytes, bool write);

  [[noreturn]] void fail(const std::string& what) const;

  // For what works beside the threads.
  Barriers& barriers() { return barriers_; }
  Warpgroups& warpgroups() { return warpgroups_; }
  RaceDetector& races() { return races_; }
  uint64_t random() { return random_(); }
  std::string nameOf(const Access& access) const;
  // Where a byte of shared memory lies in its address space, and in the arena.
  uint32_t sharedAddress(const void* p) const;
  void* sharedAt(uint32_t address) const;
  size_t offsetOf(const void* p) const { return static_cast<size_t>(static_cast<const char*>(p) - arena_); }
  // Suspends this thread until wake() finds it.
  void sleep(Thread::State state, int line) { wait(state, line); }
  void wake(const std::function<bool(Thread&)>& chosen);
  // Whether the other lanes of this warp wait in an exchange already; meet() lets them go on.
  bool isLastLane() const;
  void meet(int line) { exchange(&line, sizeof line, line); }
  // This thread's cp.async that it has not waited for.
  std::vector<PendingCopy> takeCopies();

 private:
  struct Array {
    const void* key;
    size_t offset, bytes;
  };
  struct Warp {
    int arrived = 0, alive = 0, line = 0;
    std::vector<char> slots;  // two sets, used in turn
  };

  Block();
  static void entry();
  void prepareThreads();
  void prepareArena();
  void wait(Thread::State state, int line);
  void release(Thread::State state, int begin, int end);
  void makeReady(std::vector<Thread*>& threads);
  void runThreads();
  void threadEnded(Thread& thread);
  void finishCopy(const PendingCopy& copy);
  void checkRedzones() const;
  std::string described(const std::string& what) const;
  [[noreturn]] void failStuck() const;

  std::vector<std::unique_ptr<Thread>> threads_;
  char* stacks_ = nullptr;
  int stackCount_ = 0;
  std::vector<Warp> warps_;
  std::deque<Thread*> ready_;
  Thread* current_ = nullptr;
  const Launch* launch_ = nullptr;
  Index index_;
  int alive_ = 0, atBarrier_ = 0, barrierLine_ = 0;
  std::vector<char> arenaMemory_;
  char* arena_ = nullptr;
  size_t used_ = 0, capacity_ = 0;
  std::vector<Array> arrays_;
  std::exception_ptr failure_;
  std::mt19937_64 random_;
  RaceDetector races_;
  Barriers barriers_{*this};
  Warpgroups warpgroups_{*this};
};

// Runs all blocks of a launch, on the threads of the pool.
void run(const Launch& launch);

// Adds `kernel's offset in this library, threads, bytes of shared memory` to the file that
// MODULEFORMER_EMULATION_LAUNCHES names, once for each: `npm run cuda:report` computes occupancy from it.
void recordLaunch(const Launch& launch);

}  // namespace mf::cuda::emulation
