#pragma once
// What this machine can do at best, measured: the yardstick of benchmarks.

namespace mf::cpu {

enum class PeakKind : int {
  F64,
  F32,
  Bf16,
  Read,
  ReadWrite
};  // Bf16: vdpbf16ps where it is used, else as f32

// Floating-point operations per second (a multiply-add counts two) or, for Read and ReadWrite (memory changed
// in place: every byte counts twice), bytes per second, of `threads` threads of the pool. Takes about 50 ms.
double measurePeak(PeakKind kind, int threads);

}  // namespace mf::cpu
