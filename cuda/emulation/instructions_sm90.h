#pragma once
// The instructions of ptx_sm90.cuh.
#include "cuda/emulation/language.h"
#include "cuda/tensor_map.h"

namespace mf::cuda {

// mbarrier.init, and fence.mbarrier_init
inline void initBarrier(uint64_t* barrier, int count, int line = __builtin_LINE()) {
  emulation::Block::running()->barriers().init(barrier, count, line);
}
inline void fenceBarriers() {
  emulation::Block::running()->barriers().fenceInit();
}
// mbarrier.arrive, and mbarrier.arrive.expect_tx
inline void arrive(uint64_t* barrier) {
  emulation::Block::running()->barriers().arrive(barrier, 0);
}
inline void arriveExpecting(uint64_t* barrier, int bytes) {
  emulation::Block::running()->barriers().arrive(barrier, bytes);
}
// cp.async.mbarrier.arrive.noinc
inline void arriveAfterCopies(uint64_t* barrier) {
  emulation::Block::running()->barriers().arriveAfterCopies(barrier);
}
// mbarrier.try_wait.parity until it is true
inline void waitPhase(uint64_t* barrier, int parity, int line = __builtin_LINE()) {
  emulation::Block::running()->barriers().wait(barrier, parity, line);
}
// fence.proxy.async
inline void fenceProxy() {
  emulation::Block::running()->races().fenceProxy(emulation::Block::thread().index);
}

// cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes
inline void copyTensor(void* shared, const TensorMap& map, int x, int y, int z, uint64_t* barrier) {
  emulation::Block::running()->barriers().copyTensor(shared, map, x, y, z, barrier);
}

// wgmma.fence, .commit_group and .wait_group
inline void fenceWarpgroup(int line = __builtin_LINE()) {
  emulation::Block::running()->warpgroups().fence(line);
}
inline void commitWarpgroup(int line = __builtin_LINE()) {
  emulation::Block::running()->warpgroups().commit(line);
}
template <int kPending>
inline void waitWarpgroup(int line = __builtin_LINE()) {
  emulation::Block::running()->warpgroups().wait(kPending, line);
}
template <int kCount>
inline void holdSums(float (&)[kCount][4]) {}

// wgmma.mma_async.sync.aligned.m64nNk16.f32.bf16.bf16
template <bool kTransposeA, bool kTransposeB, int kCount>
inline void multiplyWarpgroup(float (&d)[kCount][4], uint64_t a, uint64_t b, bool add,
                              int line = __builtin_LINE()) {
  static_assert(kCount == 16 || kCount == 32);
  emulation::Block::running()->warpgroups().multiply({a, b, kCount * 8, kTransposeA, kTransposeB, add},
                                                     &d[0][0], line);
}

// setmaxnreg.dec and .inc
template <int kCount>
inline void lowerRegisters(int line = __builtin_LINE()) {
  emulation::Block::running()->warpgroups().setRegisters(kCount, false, line);
}
template <int kCount>
inline void raiseRegisters(int line = __builtin_LINE()) {
  emulation::Block::running()->warpgroups().setRegisters(kCount, true, line);
}

}  // namespace mf::cuda
