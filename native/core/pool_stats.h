#pragma once
#include <cstdint>

namespace mf {

// What forking and joining threads has cost the process so far.
struct PoolStats {
  int64_t jobs;    // shared between threads
  double seconds;  // in which a job's first thread started the others or waited for them at the end
};
PoolStats poolStats();

}  // namespace mf
