#pragma once
// The PTX instructions of ptx.cuh, by the PTX manual's description of each fragment. "g" is lane / 4 and "t"
// is lane % 4 there and here.
#include "core/dtype.h"
#include "cuda/emulation/language.h"

namespace mf::cuda {
namespace emulation {

inline float bf16At(const uint32_t* words, int half) {
  bf16 value;
  value.bits = static_cast<uint16_t>(words[half / 2] >> (half % 2 * 16));
  return value;
}
inline float tf32(uint32_t word) {
  return std::bit_cast<float>(word & 0xffffe000u);
}

struct Operands {
  uint32_t a[4], b[2];
};
inline const Operands& operandsOf(const char* slots, int lane) {
  return *reinterpret_cast<const Operands*>(slots + static_cast<size_t>(lane) * Block::kSlot);
}

}  // namespace emulation

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32: d += a b with a [16, 16], b [16, 8], d [16, 8].
inline void mmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    int line = __builtin_LINE()) {
  emulation::Operands own{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const char* slots = emulation::exchange(own, line);
  const int lane = emulation::lane(), g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + (i >= 2 ? 8 : 0), column = t * 2 + i % 2;
    float sum = 0;
    for (int k = 0; k < 16; ++k) {
      // a: register 0 holds rows 0-7 and k 0-7, 1 rows 8-15, 2 k 8-15, 3 both; b: register 0 holds k 0-7.
      const auto& left = emulation::operandsOf(slots, row % 8 * 4 + k % 8 / 2);
      const auto& right = emulation::operandsOf(slots, column * 4 + k % 8 / 2);
      sum += emulation::bf16At(left.a + (row / 8 + k / 8 * 2), k % 2) *
             emulation::bf16At(right.b + k / 8, k % 2);
    }
    d[i] += sum;
  }
}

// mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32: d += a b with a [16, 8], b [8, 8], d [16, 8].
inline void mmaTf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    int line = __builtin_LINE()) {
  emulation::Operands own{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const char* slots = emulation::exchange(own, line);
  const int lane = emulation::lane(), g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) {
    const int row = g + (i >= 2 ? 8 : 0), column = t * 2 + i % 2;
    float sum = 0;
    for (int k = 0; k < 8; ++k) {
      const auto& left = emulation::operandsOf(slots, row % 8 * 4 + k % 4);
      const auto& right = emulation::operandsOf(slots, column * 4 + k % 4);
      sum += emulation::tf32(left.a[row / 8 + k / 4 * 2]) * emulation::tf32(right.b[k / 4]);
    }
    d[i] += sum;
  }
}

// mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64: d += a b with a [8, 4], b [4, 8], d [8, 8].
inline void mmaF64(double& d0, double& d1, double a, double b, int line = __builtin_LINE()) {
  struct Pair {
    double a, b;
  };
  const char* slots = emulation::exchange(Pair{a, b}, line);
  const int lane = emulation::lane(), g = lane / 4, t = lane % 4;
  for (int k = 0; k < 4; ++k) {
    const double left = emulation::valueOfLane<Pair>(slots, g * 4 + k).a;
    d0 += left * emulation::valueOfLane<Pair>(slots, 2 * t * 4 + k).b;
    d1 += left * emulation::valueOfLane<Pair>(slots, (2 * t + 1) * 4 + k).b;
  }
}

// cvt.rn.bf16x2.f32
inline uint32_t packBf16(float low, float high) {
  return bf16(low).bits | static_cast<uint32_t>(bf16(high).bits) << 16;
}

// ex2.approx.ftz.f32 and rcp.approx.ftz.f32, exact but for the denormals
inline float exp2Approximate(float x) {
  const float y = std::exp2(x);
  return y < 1.17549435e-38f ? 0.0f : y;
}
inline float reciprocalApproximate(float x) {
  return 1 / x;
}

namespace emulation {
// Rows of 8 two-byte elements at the addresses of all lanes.
struct Rows {
  const uint16_t* row[kWarp];
};
inline Rows rowsOfLanes(const bf16* row, int line) {
  Block::running()->checkShared(row, 16, 16);
  const char* slots = exchange(row, line);
  Rows rows;
  for (int lane = 0; lane < kWarp; ++lane)
    rows.row[lane] = reinterpret_cast<const uint16_t*>(valueOfLane<const bf16*>(slots, lane));
  return rows;
}
}  // namespace emulation

// ldmatrix.sync.aligned.m8n8.x4.shared.b16: lane 8 m + r gives the address of row r of matrix m; register m
// of a lane receives elements 2 t and 2 t + 1 of row g.
inline void loadMatrix4(uint32_t (&d)[4], const bf16* row, int line = __builtin_LINE()) {
  const emulation::Rows rows = emulation::rowsOfLanes(row, line);
  const int lane = emulation::lane(), g = lane / 4, t = lane % 4;
  for (int m = 0; m < 4; ++m) std::memcpy(&d[m], rows.row[m * 8 + g] + 2 * t, 4);
}
// ... .trans: the matrices are transposed on the way.
inline void loadMatrix4Transposed(uint32_t (&d)[4], const bf16* row, int line = __builtin_LINE()) {
  const emulation::Rows rows = emulation::rowsOfLanes(row, line);
  const int lane = emulation::lane(), g = lane / 4, t = lane % 4;
  for (int m = 0; m < 4; ++m)
    d[m] = rows.row[m * 8 + 2 * t][g] | static_cast<uint32_t>(rows.row[m * 8 + 2 * t + 1][g]) << 16;
}

// cp.async.cg.shared.global [shared], [global], 16, filled: bytes from `filled` on become 0.
inline void copyAsync16(void* shared, const void* global, int filled) {
  emulation::Block::running()->copyAsync({shared, global, 16, static_cast<size_t>(filled)});
}
inline void commitCopies() {
  emulation::Block::running()->commitCopies();
}
template <int kPending>
inline void waitCopies() {
  emulation::Block::running()->waitCopies(kPending);
}

}  // namespace mf::cuda
