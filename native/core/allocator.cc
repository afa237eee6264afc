#include "core/allocator.h"

#include <algorithm>

namespace mf {
namespace {

constexpr size_t kAlignment = 64;

// Eight sizes an octave, so that blocks of like tensors fit each other; at most 12.5% is wasted.
size_t roundUp(size_t bytes) {
  size_t step = kAlignment;
  while (step * 16 <= bytes) step *= 2;
  return bytes <= kAlignment ? kAlignment : (bytes + step - 1) / step * step;
}

std::string megabytes(size_t bytes) {
  return std::to_string((bytes + 999'999) / 1'000'000) + " MB";
}

}  // namespace

Allocator::~Allocator() {
  for (Storage* storage : all_) {
    source_.release(storage->data, storage->capacity);
    delete storage;
  }
}

Storage* Allocator::allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 2) fail(bytes);
  const size_t size = roundUp(bytes);
  Storage* storage = takeCached(size);
  if (!storage) storage = takeNew(size);
  if (!storage) {
    drain_();
    freeCached();
    storage = takeNew(size);
  }
  if (!storage) {
    sweep_();
    drain_();
    storage = takeCached(size);
    if (!storage) {
      freeCached();
      storage = takeNew(size);
    }
  }
  if (!storage) fail(bytes);
  storage->bytes = bytes;
  take(storage);
  stats_.total += storage->capacity;
  return storage;
}

void Allocator::take(Storage* storage) {
  storage->references = 1;
  stats_.live += storage->capacity;
  stats_.peak = std::max(stats_.peak, stats_.live);
  ++stats_.blocks;
}

void Allocator::release(Storage* storage) {
  stats_.live -= storage->capacity;
  stats_.cached += storage->capacity;
  --stats_.blocks;
  (pooling_ ? pool_ : free_).emplace(storage->capacity, storage);
}

std::vector<Storage*> Allocator::endPool() {
  std::vector<Storage*> blocks;
  for (const auto& [size, storage] : pool_) {
    stats_.cached -= size;
    take(storage);
    blocks.push_back(storage);
  }
  pool_.clear();
  pooling_ = false;
  return blocks;
}

void Allocator::trim() {
  drain_();
  freeCached();
}

Storage* Allocator::takeCached(size_t bytes) {
  for (auto* blocks : {&pool_, &free_}) {
    const auto found = blocks->lower_bound(bytes);
    // A block more than a quarter too large is left for the tensors it was made for.
    if (found == blocks->end() || found->first > bytes + bytes / 4) continue;
    Storage* storage = found->second;
    blocks->erase(found);
    stats_.cached -= storage->capacity;
    return storage;
  }
  return nullptr;
}

Storage* Allocator::takeNew(size_t bytes) {
  const size_t held = stats_.live + stats_.cached;
  if (bytes > limit_ || held > limit_ - bytes) return nullptr;
  void* data = source_.allocate(bytes);
  if (!data) return nullptr;
  auto* storage = new Storage;
  storage->data = data;
  storage->capacity = bytes;
  storage->owner = this;
  all_.insert(storage);
  return storage;
}

void Allocator::freeBlock(Storage* storage) {
  all_.erase(storage);
  source_.release(storage->data, storage->capacity);
  delete storage;
}

void Allocator::freeCached() {
  for (const auto& [size, storage] : free_) {
    stats_.cached -= size;
    freeBlock(storage);
  }
  free_.clear();
}

void Allocator::fail(size_t bytes) const {
  std::string message = "out of memory: " + megabytes(bytes) + " wanted, " + megabytes(stats_.live) +
                        " live in " + std::to_string(stats_.blocks) + " blocks";
  if (limit_ != SIZE_MAX) message += ", limit " + megabytes(limit_);
  throw Error(ErrorKind::Memory, message);
}

}  // namespace mf
