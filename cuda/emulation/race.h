#pragma once
// Finds races in shared memory: two accesses to a byte by different threads, one of them a write, with no
// barrier of the block (or of the warp, when both are in one) between. Barriers are the only things that
// order shared memory in these kernels, so epochs counted at barriers do for vector clocks.
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mf::cuda::emulation {

struct Access {
  int32_t thread = -1;
  uint32_t blockEpoch = 0, warpEpoch = 0;
};

class RaceDetector {
 public:
  void reset(size_t bytes);
  // The other access, or null when there is no race.
  const Access* note(size_t offset, size_t bytes, bool write, Access access);
  void blockBarrier() { ++blockEpoch_; }
  void warpBarrier(int warp);
  Access stamp(int thread) const;

 private:
  struct Shadow {
    Access write;
    Access reads[2];  // the last ones by two different threads
  };
  static bool ordered(const Access& earlier, const Access& later);

  std::vector<Shadow> shadow_;
  uint32_t blockEpoch_ = 0;
  std::vector<uint32_t> warpEpoch_;
};

}  // namespace mf::cuda::emulation
