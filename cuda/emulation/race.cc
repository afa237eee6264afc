#include "cuda/emulation/race.h"

namespace mf::cuda::emulation {

void RaceDetector::reset(size_t bytes) {
  shadow_.assign(bytes, Shadow{});
  blockEpoch_ = 0;
  warpEpoch_.assign(32, 0);
}

void RaceDetector::warpBarrier(int warp) {
  ++warpEpoch_[static_cast<size_t>(warp)];
}

Access RaceDetector::stamp(int thread) const {
  return {thread, blockEpoch_, warpEpoch_[static_cast<size_t>(thread / 32)]};
}

bool RaceDetector::ordered(const Access& earlier, const Access& later) {
  if (earlier.thread < 0 || earlier.thread == later.thread || earlier.blockEpoch != later.blockEpoch)
    return true;
  return earlier.thread / 32 == later.thread / 32 && earlier.warpEpoch != later.warpEpoch;
}

const Access* RaceDetector::note(size_t offset, size_t bytes, bool write, Access access) {
  for (size_t i = offset; i < offset + bytes && i < shadow_.size(); ++i) {
    Shadow& shadow = shadow_[i];
    if (!ordered(shadow.write, access)) return &shadow.write;
    if (write) {
      for (const Access& read : shadow.reads)
        if (!ordered(read, access)) return &read;
      shadow.write = access;
    } else {
      // Two readers stand for all of an epoch: a writer differs from one of them.
      Access* reads = shadow.reads;
      const bool first =
          reads[0].thread == access.thread || (reads[1].thread != access.thread && ordered(reads[0], access));
      reads[first ? 0 : 1] = access;
    }
  }
  return nullptr;
}

}  // namespace mf::cuda::emulation
