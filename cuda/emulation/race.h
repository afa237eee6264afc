#pragma once
// Finds races in shared memory: two accesses to a byte, one of them a write, of which neither is ordered
// before the other. Barriers of the block and of warps are counted as epochs. Kernels that use barriers in
// memory (mbarrier) or instructions that work beside the threads (bulk copies, products of warpgroups) have
// vector clocks too: every thread knows up to where it has seen each agent. Agents are the threads, then the
// copies that arrive at a barrier in memory, then the products of a warp.
#include <cstddef>
#include <cstdint>
#include <vector>

namespace mf::cuda::emulation {

// `clock` counts what its agent has released; 0 is before vector clocks began.
struct Access {
  int32_t agent = -1;
  uint32_t clock = 0, blockEpoch = 0, warpEpoch = 0;
};

// The clocks up to which agents have been seen, and up to which they have been made visible to the async
// proxy.
struct Knowledge {
  std::vector<uint32_t> seen, fenced;
  void join(const Knowledge& other);
};

class RaceDetector {
 public:
  static constexpr int kMostBarriers = 64;
  static constexpr size_t kCell = 16;

  void reset(size_t bytes, int threads);
  int barrierAgent(int barrier) const { return threads_ + barrier; }
  int warpAgent(int warp) const { return threads_ + kMostBarriers + warp; }

  void blockBarrier();
  void warpBarrier(int warp);
  void startClocks();
  Knowledge& known(int thread) { return known_[static_cast<size_t>(thread)]; }
  void release(int thread);     // what it does from now on is not seen with what it did before
  void fenceProxy(int thread);  // all it has seen is visible to the async proxy
  Access stamp(int thread) const;
  bool sees(int thread, const Access& earlier) const;

  // The other access, or null when there is no race.
  const Access* note(size_t offset, size_t bytes, bool write, int thread);
  // Copies of a thread that will arrive at a barrier: seen with that barrier's phase only.
  void noteArrival(size_t offset, size_t bytes, Access by);
  // A write beside the threads, issued by one of them. Whole cells.
  const Access* noteBulkWrite(size_t offset, size_t bytes, int thread, Access by);
  // A read of a cell by all lanes of a warp through the async proxy. `unfenced`: the other access is seen,
  // but no fence.proxy.async lies between. `checked`: the last writes that were found in order.
  struct Checked {
    Access bulk, byThread;
  };
  const Access* noteBulkRead(size_t offset, int warp, uint32_t clock, Checked& checked, bool& unfenced);

 private:
  struct Shadow {
    Access write;
    Access reads[2];  // the last ones by two different threads
  };
  static constexpr size_t kPage = 1024;

  Shadow& touch(size_t offset);
  void startBulk();
  const Access* noteInCell(size_t cell, bool write, int thread);
  uint32_t* readsOf(size_t cell) { return bulkReads_.data() + cell * warps_; }

  std::vector<Shadow> shadow_;
  std::vector<char> touchedPages_, touchedCells_;  // whose bytes have an access by a thread
  std::vector<Access> bulkWrites_;                 // of each cell
  std::vector<uint32_t> bulkReads_;                // of each cell by each warp
  Access read_;                                    // what noteInCell found
  bool clocks_ = false, bulk_ = false;
  int threads_ = 0;
  size_t warps_ = 0;
  uint32_t blockEpoch_ = 0;
  std::vector<uint32_t> warpEpoch_;
  std::vector<Knowledge> known_;
};

}  // namespace mf::cuda::emulation
