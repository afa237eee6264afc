// Kernel files built with MF_CUDA_RACES are compiled, but not linked, with -fsanitize=thread: the compiler
// then calls these functions at every memory access.
#include <cstddef>

#include "cuda/emulation/block.h"

namespace {

void note(const void* p, size_t bytes, bool write) {
  if (mf::cuda::emulation::Block* block = mf::cuda::emulation::Block::running())
    block->noteAccess(p, bytes, write);
}

}  // namespace

#define MF_HOOKS(bytes)                                    \
  extern "C" void __tsan_read##bytes(void* p) {            \
    note(p, bytes, false);                                 \
  }                                                        \
  extern "C" void __tsan_write##bytes(void* p) {           \
    note(p, bytes, true);                                  \
  }                                                        \
  extern "C" void __tsan_unaligned_read##bytes(void* p) {  \
    note(p, bytes, false);                                 \
  }                                                        \
  extern "C" void __tsan_unaligned_write##bytes(void* p) { \
    note(p, bytes, true);                                  \
  }                                                        \
  extern "C" void __tsan_volatile_read##bytes(void* p) {   \
    note(p, bytes, false);                                 \
  }                                                        \
  extern "C" void __tsan_volatile_write##bytes(void* p) {  \
    note(p, bytes, true);                                  \
  }
MF_HOOKS(1)
MF_HOOKS(2)
MF_HOOKS(4)
MF_HOOKS(8)
MF_HOOKS(16)

extern "C" void __tsan_read_range(void* p, size_t bytes) {
  note(p, bytes, false);
}
extern "C" void __tsan_write_range(void* p, size_t bytes) {
  note(p, bytes, true);
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_vptr_read(void**) {}

// The detector takes no note of atomics.
extern "C" int __tsan_atomic32_fetch_add(volatile int* p, int value, int) {
  return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}
extern "C" int __tsan_atomic32_compare_exchange_strong(volatile int* p, int* expected, int value, int, int) {
  return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
extern "C" char __tsan_atomic8_load(const volatile char* p, int) {
  return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
