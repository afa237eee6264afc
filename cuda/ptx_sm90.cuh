#pragma once
// The instructions of sm_90a that work beside the threads: barriers in memory, bulk copies, products of
// warpgroups. cuda/emulation/instructions_sm90.h has their twins. Elsewhere they trap.
#include "cuda/ptx.cuh"
#include "cuda/tensor_map.h"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MF_SM90(...) asm volatile(__VA_ARGS__)
#else
#define MF_SM90(...) __trap()
#endif

namespace mf::cuda {

// A barrier whose phases end with `count` arrivals and all bytes that were announced. To be followed by
// fenceBarriers(), and a barrier of the block before others use it.
MF_DEVICE void initBarrier(uint64_t* barrier, int count) {
  MF_SM90("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(sharedAddress(barrier)), "r"(count) : "memory");
}
MF_DEVICE void fenceBarriers() {
  MF_SM90("fence.mbarrier_init.release.cluster;" : : : "memory");
}
MF_DEVICE void arrive(uint64_t* barrier) {
  MF_SM90("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(sharedAddress(barrier)) : "memory");
}
// Announces bytes of bulk copies, then arrives.
MF_DEVICE void arriveExpecting(uint64_t* barrier, int bytes) {
  MF_SM90("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
          :
          : "r"(sharedAddress(barrier)), "r"(bytes)
          : "memory");
}
// Arrives when all cp.async of this thread so far have.
MF_DEVICE void arriveAfterCopies(uint64_t* barrier) {
  MF_SM90("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" : : "r"(sharedAddress(barrier)) : "memory");
}
// Waits for the end of the phase of this parity: 0 for the first one; with 1 a fresh barrier lets all pass.
MF_DEVICE void waitPhase(uint64_t* barrier, int parity) {
  MF_SM90(
      "{\n.reg .pred done;\nWAIT:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra WAIT;\n}"
      :
      : "r"(sharedAddress(barrier)), "r"(parity)
      : "memory");
}
// What this thread has written or seen written to shared memory becomes visible to bulk copies and products.
MF_DEVICE void fenceProxy() {
  MF_SM90("fence.proxy.async.shared::cta;" : : : "memory");
}

// The box of the map at column x, row y of plane z, to a multiple of 1024 bytes; its bytes count for the
// barrier. By one thread.
MF_DEVICE void copyTensor(void* shared, const TensorMap& map, int x, int y, int z, uint64_t* barrier) {
  MF_SM90(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];"
      :
      : "r"(sharedAddress(shared)), "l"(&map), "r"(x), "r"(y), "r"(z), "r"(sharedAddress(barrier))
      : "memory");
}

// Before products whose sums may have been touched.
MF_DEVICE void fenceWarpgroup() {
  MF_SM90("wgmma.fence.sync.aligned;" : : : "memory");
}
MF_DEVICE void commitWarpgroup() {
  MF_SM90("wgmma.commit_group.sync.aligned;" : : : "memory");
}
template <int kPending>
MF_DEVICE void waitWarpgroup() {
  MF_SM90("wgmma.wait_group.sync.aligned %0;" : : "n"(kPending) : "memory");
}

#define MF_SUMS_OF(d, j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define MF_SUMS(d, j) MF_SUMS_OF(d, j), MF_SUMS_OF(d, j + 1), MF_SUMS_OF(d, j + 2), MF_SUMS_OF(d, j + 3)

// After the last wait: no use of the sums moves before it.
template <int kCount>
MF_DEVICE void holdSums(float (&d)[kCount][4]) {
  MF_UNROLL
  for (int j = 0; j < kCount; ++j) asm volatile("" : MF_SUMS_OF(d, j) : : "memory");
}

// d (+)= a b with a [64, 16] and b [16, n] in shared memory, both by descriptors (gemm_warpgroup.cuh), d in
// the fragments of mmaBf16: warp w has rows 16 w to 16 w + 15. A transposed operand is MN-major.
template <bool kTransposeA, bool kTransposeB>
MF_DEVICE void multiplyWarpgroup(float (&d)[16][4], uint64_t a, uint64_t b, bool add) {
  MF_SM90(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, add, 1, 1, %67, %68;\n}"
      : MF_SUMS(d, 0), MF_SUMS(d, 4), MF_SUMS(d, 8), MF_SUMS(d, 12)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(int{kTransposeA}), "n"(int{kTransposeB}));
}
template <bool kTransposeA, bool kTransposeB>
MF_DEVICE void multiplyWarpgroup(float (&d)[32][4], uint64_t a, uint64_t b, bool add) {
  MF_SM90(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "%128, %129, add, 1, 1, %131, %132;\n}"
      : MF_SUMS(d, 0), MF_SUMS(d, 4), MF_SUMS(d, 8), MF_SUMS(d, 12), MF_SUMS(d, 16), MF_SUMS(d, 20),
        MF_SUMS(d, 24), MF_SUMS(d, 28)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(int{kTransposeA}), "n"(int{kTransposeB}));
}

// By all threads of a warpgroup.
template <int kCount>
MF_DEVICE void lowerRegisters() {
  MF_SM90("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(kCount));
}
template <int kCount>
MF_DEVICE void raiseRegisters() {
  MF_SM90("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(kCount));
}

}  // namespace mf::cuda
