#pragma once
// What common.cuh and ptx.cuh stand on in the emulated build: the words of CUDA C++ that kernels use.
#include <bit>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "cuda/emulation/block.h"
#include "cuda/emulation/graph.h"

#define MF_KERNEL inline
#define MF_KERNEL_OF(threads) inline
#define MF_PARAMETER(T) const T
#define MF_DEVICE inline
#define MF_UNROLL _Pragma("GCC unroll 16")
#define MF_NO_UNROLL _Pragma("GCC unroll 1")

namespace mf::cuda {

using StreamHandle = void*;  // launches are synchronous, but for those that a graph captures

inline int threadId() {
  return emulation::Block::thread().index;
}
inline int blockThreads() {
  return emulation::Block::running()->launch().threads;
}
inline int blockId() {
  return emulation::Block::running()->index().x;
}
inline int blockIdY() {
  return emulation::Block::running()->index().y;
}
inline int blockIdZ() {
  return emulation::Block::running()->index().z;
}
inline int gridBlocks() {
  return emulation::Block::running()->launch().grid.x;
}

inline void syncThreads(int line = __builtin_LINE()) {
  emulation::Block::running()->barrier(line);
}
inline void syncWarp(int line = __builtin_LINE()) {
  emulation::Block::running()->syncWarp(line);
}

namespace emulation {
template <typename T>
T valueOfLane(const char* slots, int lane) {
  T value;
  std::memcpy(&value, slots + static_cast<size_t>(lane % kWarp) * Block::kSlot, sizeof value);
  return value;
}
template <typename T>
const char* exchange(const T& value, int line) {
  static_assert(sizeof(T) <= Block::kSlot && std::is_trivially_copyable_v<T>);
  return Block::running()->exchange(&value, sizeof value, line);
}
inline int lane() {
  return Block::thread().index % kWarp;
}
}  // namespace emulation

template <typename T>
T shuffle(T value, int source, int line = __builtin_LINE()) {
  return emulation::valueOfLane<T>(emulation::exchange(value, line), source);
}
template <typename T>
T shuffleXor(T value, int mask, int line = __builtin_LINE()) {
  return emulation::valueOfLane<T>(emulation::exchange(value, line), emulation::lane() ^ mask);
}
// From the lane `distance` below; the first lanes keep their own.
template <typename T>
T shuffleUp(T value, int distance, int line = __builtin_LINE()) {
  const int lane = emulation::lane();
  return emulation::valueOfLane<T>(emulation::exchange(value, line),
                                   lane < distance ? lane : lane - distance);
}
inline uint32_t ballot(bool flag, int line = __builtin_LINE()) {
  const char* slots = emulation::exchange(flag, line);
  uint32_t bits = 0;
  for (int lane = 0; lane < emulation::kWarp; ++lane)
    bits |= static_cast<uint32_t>(emulation::valueOfLane<bool>(slots, lane)) << lane;
  return bits;
}
inline int popCount(uint32_t bits) {
  return std::popcount(bits);
}

inline void atomicIncrement(int* target) {
  __atomic_fetch_add(target, 1, __ATOMIC_RELAXED);
}
// The old value; stores `value` when it was `expected`.
inline int atomicCompareExchange(int* target, int expected, int value) {
  __atomic_compare_exchange_n(target, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

// A shared array; indices are checked.
template <typename T>
class SharedSpan {
 public:
  SharedSpan(void* data, int size) : data_(static_cast<T*>(data)), size_(size) {}
  T& operator[](int i) const {
    if (i < 0 || i >= size_)
      emulation::Block::running()->fail("index " + std::to_string(i) + " of a shared array of " +
                                        std::to_string(size_));
    return data_[i];
  }
  T* at(int i) const { return &(*this)[i]; }
  SharedSpan part(int first, int size) const {
    if (first < 0 || size < 0 || first + size > size_)
      emulation::Block::running()->fail("a part of a shared array is outside it");
    return {data_ + first, size};
  }

 private:
  T* data_;
  int size_;
};

#define MF_SHARED(T, name, count)                                                                        \
  static const char name##Key = 0;                                                                       \
  const ::mf::cuda::SharedSpan<T> name(                                                                  \
      ::mf::cuda::emulation::Block::running()->sharedArray(&name##Key, sizeof(T) * (count), alignof(T)), \
      count)

// Whether the flag of any thread is set.
inline bool syncThreadsOr(bool flag, int line = __builtin_LINE()) {
  MF_SHARED(bool, flags, 1024);
  syncThreads(line);
  flags[threadId()] = flag;
  syncThreads(line);
  bool any = false;
  for (int i = 0; i < blockThreads(); ++i) any |= flags[i];
  syncThreads(line);
  return any;
}

inline uint32_t sharedAddress(const void* p) {
  return emulation::Block::running()->sharedAddress(p);
}

// Dynamic shared memory, taken piece by piece, each 16-byte aligned. Where more is asked, up to
// `alignment` - 16 bytes are left out.
class DynamicShared {
 public:
  template <typename T>
  SharedSpan<T> take(int count, unsigned alignment = 16) {
    emulation::Block& block = *emulation::Block::running();
    const size_t bytes = (sizeof(T) * static_cast<size_t>(count) + 15) / 16 * 16;
    if (alignment > 16) taken_ += -sharedAddress(block.dynamicShared() + taken_) % alignment;
    char* data = block.dynamicShared() + taken_;
    block.checkShared(data, bytes, 16);
    taken_ += bytes;
    return {data, count};
  }

 private:
  size_t taken_ = 0;
};

template <typename... P, typename... A>
void launch(void (*kernel)(P...), Dimensions grid, int threads, size_t shared, StreamHandle,
            A&&... arguments) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel parameters must be trivially copyable");
  static_assert(sizeof...(P) == sizeof...(A), "a kernel takes other arguments");
  if (grid.x <= 0 || grid.y <= 0 || grid.z <= 0) return;
  const std::tuple<P...> values{static_cast<P>(arguments)...};
  const emulation::Launch launch{
      {static_cast<int>(grid.x), static_cast<int>(grid.y), static_cast<int>(grid.z)},
      threads,
      shared,
      [kernel, values] { std::apply(kernel, values); },
      reinterpret_cast<const void*>(kernel)};
  emulation::submit([launch] { emulation::run(launch); });
}

}  // namespace mf::cuda
