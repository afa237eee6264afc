#pragma once
// A fiber: a stack of its own to switch to and from, in about 10 ns. Fibers never move between OS threads.
#include <cstddef>

namespace mf::cuda::emulation {

class Fiber {
 public:
  // Prepares to run entry() on this stack from its beginning; entry must not return.
  void prepare(char* stack, size_t bytes, void (*entry)());
  void entered();  // the first call in entry()
  void resume();   // from the scheduler: runs until the fiber suspends
  void suspend();  // from the fiber: back to the scheduler
  void leave();    // as suspend, for good

 private:
  void switchBack(bool forGood);

  void* fiber_ = nullptr;  // saved stack pointers
  void* scheduler_ = nullptr;
  char* stack_ = nullptr;
  size_t bytes_ = 0;
  void* fakeStack_ = nullptr;  // what the address sanitizer keeps of each side
  void* schedulerFakeStack_ = nullptr;
  const void* schedulerStack_ = nullptr;
  size_t schedulerBytes_ = 0;
};

}  // namespace mf::cuda::emulation
