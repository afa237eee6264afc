#pragma once
// Products of warpgroups (wgmma). Each warp's part of a product is done when the warp waits for it, as late
// as it may, or at once with early copies; until then its sums are NaN, and must not be touched.
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

namespace mf::cuda::emulation {

class Block;

// wgmma.mma_async m64nNk16 with both operands in shared memory.
struct Multiplication {
  uint64_t a, b;  // descriptors
  int n;
  bool transposeA, transposeB, add;
};

class Warpgroups {
 public:
  explicit Warpgroups(Block& block) : block_(block) {}
  void reset(int threads);
  void fence(int line);
  // sums: this lane's n / 2.
  void multiply(const Multiplication& what, float* sums, int line);
  void commit(int line);
  void wait(int pending, int line);
  // setmaxnreg
  void setRegisters(int count, bool raise, int line);
  // Whether a thread touches sums of a product that it has not waited for.
  bool holds(int thread, const void* p, size_t bytes) const;
  // Fails for what a block leaves undone.
  void finish() const;

 private:
  struct Sums {
    float* of[32];
    int n, uses;
    std::vector<float> values;  // [32, n / 2]
  };
  struct Work {
    Multiplication what;
    Sums* sums;
  };
  struct Warp {
    bool fenced = false;
    uint32_t retired = 0;
    size_t issued = 0;
    int registers = 0;
    float* of[32];
    Multiplication asked[32];
    std::vector<Work> open;
    std::deque<std::vector<Work>> groups;
    std::vector<std::unique_ptr<Sums>> sums;
  };

  Warp& own();
  int ownIndex() const;
  // Meets the other lanes; true for one of them, before any goes on.
  bool lastOfWarp(int line, const char* what);
  void issue(Warp& warp, int index);
  void checkReads(const Multiplication& what, int index);
  void execute(const Work& work, int index);
  Sums& sumsOf(Warp& warp, int n);
  void deliver(Warp& warp);

  Block& block_;
  std::vector<Warp> warps_;
  std::vector<std::vector<Multiplication>> asked_;  // of each warpgroup, in turn
};

}  // namespace mf::cuda::emulation
