#include "cuda/emulation/fiber.h"

#include <cstdint>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the registers that a call preserves on the running stack and its pointer in *save, then takes up the
// stack `load`.
extern "C" void mf_switch_fiber(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
.text
.globl mf_switch_fiber
.hidden mf_switch_fiber
.type mf_switch_fiber,@function
mf_switch_fiber:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size mf_switch_fiber,.-mf_switch_fiber
)");
#elif defined(__aarch64__)
asm(R"(
.text
.globl mf_switch_fiber
.hidden mf_switch_fiber
.type mf_switch_fiber,%function
mf_switch_fiber:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size mf_switch_fiber,.-mf_switch_fiber
)");
#else
#error "the emulator has a context switch for x86-64 and arm64 only"
#endif

namespace mf::cuda::emulation {

void Fiber::prepare(char* stack, size_t bytes, void (*entry)()) {
  stack_ = stack;
  bytes_ = bytes;
  fakeStack_ = nullptr;
  auto* top = reinterpret_cast<uintptr_t*>(stack + bytes);
#if defined(__x86_64__)
  // Six registers, the address that `ret` takes, and a null return address for entry.
  uintptr_t* frame = top - 8;
  std::memset(frame, 0, 8 * sizeof(uintptr_t));
  frame[6] = reinterpret_cast<uintptr_t>(entry);
#else
  uintptr_t* frame = top - 20;
  std::memset(frame, 0, 20 * sizeof(uintptr_t));
  frame[11] = reinterpret_cast<uintptr_t>(entry);  // x30
#endif
  fiber_ = frame;
}

void Fiber::resume() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&schedulerFakeStack_, stack_, bytes_);
  mf_switch_fiber(&scheduler_, fiber_);
  __sanitizer_finish_switch_fiber(schedulerFakeStack_, nullptr, nullptr);
#else
  mf_switch_fiber(&scheduler_, fiber_);
#endif
}

void Fiber::switchBack([[maybe_unused]] bool forGood) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(forGood ? nullptr : &fakeStack_, schedulerStack_, schedulerBytes_);
  mf_switch_fiber(&fiber_, scheduler_);
  __sanitizer_finish_switch_fiber(fakeStack_, &schedulerStack_, &schedulerBytes_);
#else
  mf_switch_fiber(&fiber_, scheduler_);
#endif
}

void Fiber::entered() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &schedulerStack_, &schedulerBytes_);
#endif
}

void Fiber::suspend() {
  switchBack(false);
}

void Fiber::leave() {
  switchBack(true);
}

}  // namespace mf::cuda::emulation
