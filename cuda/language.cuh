#pragma once
// What common.cuh stands on under nvcc.
#include <cuda_runtime.h>

#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#define MF_KERNEL __global__ static
// A kernel of at most so many threads, one block at a time on a multiprocessor; a parameter that it may take
// the address of.
#define MF_KERNEL_OF(threads) __global__ static __launch_bounds__(threads, 1)
#define MF_PARAMETER(T) const __grid_constant__ T
#define MF_DEVICE __device__ __forceinline__
#define MF_UNROLL _Pragma("unroll")
#define MF_NO_UNROLL _Pragma("unroll 1")

namespace mf::cuda {

using StreamHandle = cudaStream_t;

MF_DEVICE int threadId() {
  return static_cast<int>(threadIdx.x);
}
MF_DEVICE int blockThreads() {
  return static_cast<int>(blockDim.x);
}
MF_DEVICE int blockId() {
  return static_cast<int>(blockIdx.x);
}
MF_DEVICE int blockIdY() {
  return static_cast<int>(blockIdx.y);
}
MF_DEVICE int blockIdZ() {
  return static_cast<int>(blockIdx.z);
}
MF_DEVICE int gridBlocks() {
  return static_cast<int>(gridDim.x);
}

MF_DEVICE void syncThreads() {
  __syncthreads();
}
// Whether the flag of any thread is set.
MF_DEVICE bool syncThreadsOr(bool flag) {
  return __syncthreads_or(flag) != 0;
}
MF_DEVICE void syncWarp() {
  __syncwarp();
}

constexpr unsigned kAllLanes = 0xffffffffu;

template <typename T>
MF_DEVICE T shuffle(T value, int source) {
  return __shfl_sync(kAllLanes, value, source);
}
template <typename T>
MF_DEVICE T shuffleXor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}
// From the lane `distance` below; the first lanes keep their own.
template <typename T>
MF_DEVICE T shuffleUp(T value, int distance) {
  return __shfl_up_sync(kAllLanes, value, static_cast<unsigned>(distance));
}
MF_DEVICE uint32_t ballot(bool flag) {
  return __ballot_sync(kAllLanes, flag);
}
MF_DEVICE int popCount(uint32_t bits) {
  return __popc(bits);
}

MF_DEVICE void atomicIncrement(int* target) {
  atomicAdd(target, 1);
}
MF_DEVICE int atomicCompareExchange(int* target, int expected, int value) {
  return atomicCAS(target, expected, value);
}

// A shared array.
template <typename T>
class SharedSpan {
 public:
  MF_DEVICE SharedSpan(void* data, int) : data_(static_cast<T*>(data)) {}
  MF_DEVICE T& operator[](int i) const { return data_[i]; }
  MF_DEVICE T* at(int i) const { return data_ + i; }
  MF_DEVICE SharedSpan part(int first, int size) const { return {data_ + first, size}; }

 private:
  T* data_;
};

#define MF_SHARED(T, name, count)                                        \
  __shared__ alignas(16) unsigned char name##Bytes[sizeof(T) * (count)]; \
  const ::mf::cuda::SharedSpan<T> name(name##Bytes, count)

MF_DEVICE uint32_t sharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

extern __shared__ __align__(16) unsigned char dynamicSharedBytes[];

// Dynamic shared memory, taken piece by piece, each 16-byte aligned. Where more is asked, up to
// `alignment` - 16 bytes are left out.
class DynamicShared {
 public:
  template <typename T>
  MF_DEVICE SharedSpan<T> take(int count, unsigned alignment = 16) {
    if (alignment > 16) taken_ += -(sharedAddress(dynamicSharedBytes) + taken_) % alignment;
    unsigned char* data = dynamicSharedBytes + taken_;
    taken_ += (static_cast<unsigned>(sizeof(T)) * static_cast<unsigned>(count) + 15) / 16 * 16;
    return {data, count};
  }

 private:
  unsigned taken_ = 0;
};

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  const ErrorKind kind = status == cudaErrorMemoryAllocation ? ErrorKind::Memory : ErrorKind::Kernel;
  throw Error(kind, std::string(what) + ": " + cudaGetErrorString(status));
}

template <typename... P, typename... A>
void launch(void (*kernel)(P...), Dimensions grid, int threads, size_t shared, StreamHandle stream,
            A&&... arguments) {
  static_assert((std::is_trivially_copyable_v<P> && ...), "kernel parameters must be trivially copyable");
  static_assert(sizeof...(P) == sizeof...(A), "a kernel takes other arguments");
  if (grid.x <= 0 || grid.y <= 0 || grid.z <= 0) return;
  std::tuple<P...> values{static_cast<P>(arguments)...};
  const auto* function = reinterpret_cast<const void*>(kernel);
  if (shared > (48u << 10))
    check(
        cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)),
        "shared memory");
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                    static_cast<unsigned>(grid.z));
  const cudaError_t status = std::apply(
      [&](P&... value) {
        void* pointers[] = {static_cast<void*>(&value)...};
        return cudaLaunchKernel(function, blocks, dim3(static_cast<unsigned>(threads)), pointers, shared,
                                stream);
      },
      values);
  if (status == cudaSuccess) return;
  const std::string shape = "launch of [" + std::to_string(grid.x) + ", " + std::to_string(grid.y) + ", " +
                            std::to_string(grid.z) + "] blocks of " + std::to_string(threads) +
                            " threads with " + std::to_string(shared) + " bytes of shared memory";
  check(status, shape.c_str());
}

}  // namespace mf::cuda
