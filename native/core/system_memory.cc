// Memory of the host in huge pages where the system has them: what one step of decoding reads in between the
// large weights (routers, norms, keys and values) is gone from the caches at the next step, and so are the
// page table entries of pages of 4 KB, each of which costs as much as the data.
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>

#include "core/allocator.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace mf {
namespace {

constexpr size_t kAlignment = 64;

#if defined(__linux__)
constexpr size_t kHugePage = size_t{2} << 20;

void* mapPages(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return data == MAP_FAILED ? nullptr : data;
}

// A huge page of its own, aligned as one.
char* mapHugePage() {
  char* data = static_cast<char*>(mapPages(2 * kHugePage));
  if (!data) return nullptr;
  const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(data) % kHugePage) % kHugePage;
  if (before > 0) munmap(data, before);
  munmap(data + before + kHugePage, kHugePage - before);
  madvise(data + before, kHugePage, MADV_HUGEPAGE);
  return data + before;
}

// Blocks smaller than a huge page, side by side in shared ones; a page without blocks is given back.
class SmallBlocks {
 public:
  void* allocate(size_t bytes) {
    const std::lock_guard<std::mutex> guard(lock_);
    auto found = bySize_.lower_bound(bytes);
    if (found == bySize_.end()) {
      char* page = mapHugePage();
      if (!page) return nullptr;
      found = add(page, kHugePage);
    }
    char* block = found->second;
    const size_t size = found->first;
    remove(found);
    if (size > bytes) add(block + bytes, size - bytes);
    return block;
  }

  void release(char* block, size_t bytes) {
    const std::lock_guard<std::mutex> guard(lock_);
    const auto isPageStart = [](const char* p) { return reinterpret_cast<uintptr_t>(p) % kHugePage == 0; };
    auto next = byAddress_.lower_bound(block);
    if (next != byAddress_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second->first == block && !isPageStart(block)) {
        block = before->first;
        bytes += before->second->first;
        remove(before->second);
      }
    }
    next = byAddress_.lower_bound(block);
    if (next != byAddress_.end() && block + bytes == next->first && !isPageStart(next->first)) {
      bytes += next->second->first;
      remove(next->second);
    }
    if (bytes == kHugePage)
      munmap(block, bytes);
    else
      add(block, bytes);
  }

 private:
  using BySize = std::multimap<size_t, char*>;

  BySize::iterator add(char* block, size_t bytes) {
    return byAddress_[block] = bySize_.emplace(bytes, block);
  }
  void remove(BySize::iterator block) {
    byAddress_.erase(block->second);
    bySize_.erase(block);
  }

  std::mutex lock_;
  BySize bySize_;                                // free stretches
  std::map<char*, BySize::iterator> byAddress_;  // the same
};
#endif

// The size must be a multiple: blocks of the pool are, a device's own records are not.
size_t aligned(size_t bytes) {
  return bytes == 0 ? kAlignment : (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

class SystemMemory final : public MemorySource {
 public:
  void* allocate(size_t bytes) override {
#if defined(_WIN32)
    return _aligned_malloc(bytes, kAlignment);
#elif defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
    if (bytes < kHugePage) return small_.allocate(aligned(bytes));
    void* data = mapPages(bytes);
    if (data) madvise(data, bytes, MADV_HUGEPAGE);
    return data;
#else
    return std::aligned_alloc(kAlignment, aligned(bytes));
#endif
  }

  void release(void* data, size_t bytes) override {
#if defined(_WIN32)
    _aligned_free(data);
    static_cast<void>(bytes);
#elif defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
    if (bytes < kHugePage)
      small_.release(static_cast<char*>(data), aligned(bytes));
    else
      munmap(data, bytes);
#else
    std::free(data);
    static_cast<void>(bytes);
#endif
  }

#if defined(__linux__)
 private:
  SmallBlocks small_;
#endif
};

}  // namespace

MemorySource& systemMemory() {
  static SystemMemory& memory = *new SystemMemory;  // outlives whatever runs at exit
  return memory;
}

}  // namespace mf
