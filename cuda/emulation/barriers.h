#pragma once
// Barriers in shared memory (mbarrier), and the copies that arrive at them: a thread that waits for a phase
// sleeps, and when no thread can run a copy arrives.
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/emulation/race.h"
#include "cuda/emulation/tensor_map.h"

namespace mf::cuda::emulation {

class Block;

class Barriers {
 public:
  explicit Barriers(Block& block) : block_(block) {}
  void reset();
  void init(void* address, int count, int line);
  void invalidate(void* address);
  void fenceInit();
  // One arrival, before which the phase is told of `bytes` more that copies will bring.
  void arrive(void* address, int64_t bytes);
  void wait(void* address, int parity, int line);
  // All cp.async of this thread so far; their arrival is one of those that init() counted.
  void arriveAfterCopies(void* address);
  // The box of the map at column x, row y of plane z; what lies outside the tensor becomes 0.
  void copyTensor(void* target, const TensorMap& map, int x, int y, int z, void* address);

  // A copy that is on its way arrives: false when there is none.
  bool completeOne();
  bool anyInFlight() const { return !flights_.empty(); }
  // What barriers still wait for, for a message.
  std::string outstanding() const;

 private:
  struct Barrier {
    void* address;
    int agent, line, count;
    Access initialised;
    bool fenced;
    int64_t phase, pending, bytes;  // bytes: announced and not arrived
    int inFlight;
    Knowledge arriving, completed;
    std::vector<int64_t> waited;  // the phase that each thread waited for last, -2 if none
  };
  struct Flight {
    Barrier* barrier;
    int64_t phase;
    std::function<void()> arrive;
  };

  Barrier& find(void* address);
  Barrier& usable(void* address, bool byCopy);
  void launchFlight(Barrier& barrier, std::function<void()> arrive);
  void countDown(Barrier& barrier);
  void completeIfDone(Barrier& barrier);
  void copyBox(char* target, const TensorMap& map, int x, int y, int z);

  Block& block_;
  std::vector<std::unique_ptr<Barrier>> barriers_;
  std::deque<Flight> flights_;
  int agents_ = 0;
};

}  // namespace mf::cuda::emulation
