#pragma once
// Every PTX instruction that kernels use, one wrapper each; cuda/emulation/instructions.h has their twins.
// Those of sm_90a are in ptx_sm90.cuh.
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

// d += a b with a [8, 4], b [4, 8], d [8, 8].
MF_DEVICE void mmaF64(double& d0, double& d1, double a, double b) {
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+d"(d0), "+d"(d1)
               : "d"(a), "d"(b));
}

// Two numbers rounded to nearest even, `low` in the lower half.
MF_DEVICE uint32_t packBf16(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

// 2^x and 1 / x to 2^-22 and one unit in the last place; denormals are 0.
MF_DEVICE float exp2Approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
MF_DEVICE float reciprocalApproximate(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
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
