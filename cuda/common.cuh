#pragma once
// The one header of the kernels. It gives them the same words in both builds: nvcc (MF_CUDA=ON) and the
// emulator (MF_CUDA=EMULATED, plain C++). Kernels use no CUDA keyword, no CUDA header and no inline assembly
// besides.
//
//   template <typename T> MF_KERNEL void scale(T* x, int64_t n) {...}    a kernel; launch(scale<T>, ...)
//   MF_DEVICE void f()                                                   a function of a kernel
//   MF_SHARED(float, sums, 32);  DynamicShared memory; memory.take<T>(n) shared memory, as SharedSpan<T>
//   threadId() blockId() blockIdY() blockIdZ() blockThreads() gridBlocks(), blocks being one-dimensional
//   syncThreads() syncThreadsOr() syncWarp() shuffle() shuffleXor() shuffleUp() ballot()  by whole warps only
//   atomicIncrement() atomicCompareExchange()  of integers
#include <cmath>
#include <cstdint>

#include "core/backend.h"
#include "core/dtype.h"
#include "core/error.h"

namespace mf::cuda {

struct Dimensions {
  int64_t x, y = 1, z = 1;
};

}  // namespace mf::cuda

#ifdef MF_CUDA_EMULATED
#include "cuda/emulation/instructions.h"
#include "cuda/emulation/instructions_sm90.h"
#else
#include "cuda/language.cuh"
#include "cuda/ptx.cuh"
#include "cuda/ptx_sm90.cuh"
#endif

namespace mf::cuda {

constexpr int kWarpSize = 32;

MF_DEVICE int laneId() {
  return threadId() % kWarpSize;
}
MF_DEVICE int warpId() {
  return threadId() / kWarpSize;
}

constexpr int64_t ceilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

template <typename T>
MF_HOST_DEVICE inline T maximum(T a, T b) {
  return a > b ? a : b;
}
template <typename T>
MF_HOST_DEVICE inline T minimum(T a, T b) {
  return a < b ? a : b;
}

}  // namespace mf::cuda
