#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/error.h"

namespace mf {

class Allocator;

// Where a device's memory comes from, for the allocator alone.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  virtual void* allocate(size_t bytes) = 0;  // at least 64-byte aligned; null when there is none
  virtual void release(void* data, size_t bytes) = 0;
};
MemorySource& systemMemory();

// A block of device memory and what the stream knows of it. Counted by the JavaScript thread alone.
struct Storage {
  void* data = nullptr;
  size_t capacity = 0;
  size_t bytes = 0;  // asked for, at most the capacity
  int64_t references = 0;
  Allocator* owner = nullptr;
  // Set while the block's content is the result of failed or skipped work. The stream's thread alone touches
  // it.
  std::shared_ptr<const Error> poison;
};

struct MemoryStats {
  size_t live = 0;    // bytes of blocks that tensors hold
  size_t peak = 0;    // highest live so far
  size_t cached = 0;  // bytes of free blocks kept for reuse
  size_t blocks = 0;  // live blocks
  size_t total = 0;   // bytes handed out since the start
};

// A caching allocator for one stream. A freed block may be handed out at once: the work that still reads it
// was enqueued earlier and runs earlier. All methods belong to the JavaScript thread.
class Allocator {
 public:
  // Called when memory is short, before giving up: must wait until no enqueued work is left, and may free
  // tensors.
  using Reclaim = std::function<void()>;

  Allocator(MemorySource& source, Reclaim drain, Reclaim sweep)
      : source_(source), drain_(std::move(drain)), sweep_(std::move(sweep)) {}
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  Storage* allocate(size_t bytes);  // references = 1; throws Error(Memory)
  void release(Storage* storage);   // references reached 0
  // From beginPool to endPool, what is freed is reused by what is allocated meanwhile, and kept when memory
  // is short. endPool hands over the blocks that are free then, with one reference each.
  void beginPool() { pooling_ = true; }
  std::vector<Storage*> endPool();
  void trim();  // waits for the stream, then gives the cached blocks back to the system

  void setLimit(size_t bytes) { limit_ = bytes; }
  void resetPeak() { stats_.peak = stats_.live; }
  const MemoryStats& stats() const { return stats_; }

 private:
  Storage* takeCached(size_t bytes);
  void take(Storage* storage);
  Storage* takeNew(size_t bytes);
  void freeBlock(Storage* storage);
  void freeCached();
  [[noreturn]] void fail(size_t bytes) const;

  MemorySource& source_;
  Reclaim drain_, sweep_;
  std::multimap<size_t, Storage*> free_;
  std::multimap<size_t, Storage*> pool_;  // freed since beginPool
  bool pooling_ = false;
  std::unordered_set<Storage*> all_;
  MemoryStats stats_;
  size_t limit_ = SIZE_MAX;
};

}  // namespace mf
