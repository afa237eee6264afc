#pragma once
// Every PTX instruction that kernels use, one wrapper each; cuda/emulation/instructions.h has their twins.
#include "cuda/language.cuh"

namespace mf::cuda {

// d += a b with a [16, 16], b [16, 8], d [16, 8].
MF_DEVICE void mmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// d += a b with a [16, 8], b [8, 8], d [16, 8].
MF_DEVICE void mmaTf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

MF_DEVICE uint32_t sharedAddress(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// Four 8 x 8 matrices of two-byte elements: lane 8 m + r gives the address of row r of matrix m.
MF_DEVICE void loadMatrix4(uint32_t (&d)[4], const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(sharedAddress(row))
               : "memory");
}
MF_DEVICE void loadMatrix4Transposed(uint32_t (&d)[4], const bf16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(sharedAddress(row))
               : "memory");
}

// 16 bytes from global to shared memory; those from `filled` on become 0.
MF_DEVICE void copyAsync16(void* shared, const void* global, int filled) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(sharedAddress(shared)), "l"(global), "r"(filled)
               : "memory");
}
MF_DEVICE void commitCopies() {
  asm volatile("cp.async.commit_group;" : : : "memory");
}
template <int kPending>
MF_DEVICE void waitCopies() {
  asm volatile("cp.async.wait_group %0;" : : "n"(kPending) : "memory");
}

}  // namespace mf::cuda
