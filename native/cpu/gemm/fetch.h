#pragma once
// Fetching memory into the L2 cache while a micro-kernel multiplies: the kernel waits for neither.
#include <cstdint>

#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {
constexpr int64_t kLineBytes = 64;

// The beginning of a row that is read next; the hardware sees to the rest.
template <typename T>
inline void fetchStart(const T* row) {
  for (int64_t i = 0; i < 4; ++i)
    __builtin_prefetch(reinterpret_cast<const char*>(row) + i * kLineBytes, 0, 2);
}

// A block of `rows` rows of rowBytes bytes each, `stride` bytes apart, fetched a piece at a time: one piece
// every `every` steps of the summed dimension.
class Fetch {
 public:
  static constexpr bool kStoresRows = false;

  Fetch() = default;
  // `steps`: those that kernels will take in all while the block is fetched.
  template <typename T>
  Fetch(const T* block, int64_t rows, int64_t rowElements, int64_t strideElements, int64_t steps)
      : row_(reinterpret_cast<const char*>(block)),
        rowBytes_(rowElements * static_cast<int64_t>(sizeof(T))),
        stride_(strideElements * static_cast<int64_t>(sizeof(T))),
        rows_(rowBytes_ > 0 ? rows : 0) {
    const int64_t pieces = rows_ * ((rowBytes_ + kPieceBytes - 1) / kPieceBytes);
    if (pieces > 0) every_ = steps / pieces > 0 ? steps / pieces : 1;
  }

  // Fetches a piece; returns the number of steps, at most `left`, until the next. Inlined at all costs:
  // around a call the kernel would spill its tile.
  [[gnu::always_inline]] int64_t step(int64_t left) {
    if (rows_ > 0) fetchPiece();
    return every_ < left ? every_ : left;
  }

 private:
  static constexpr int64_t kPieceBytes = 4 * kLineBytes;

  [[gnu::always_inline]] void fetchPiece() {
    const char* piece = row_ + offset_;
    for (int64_t i = 0; i < kPieceBytes; i += kLineBytes) __builtin_prefetch(piece + i, 0, 2);
    offset_ += kPieceBytes;
    if (offset_ < rowBytes_) return;
    offset_ = 0;
    row_ += stride_;
    if (--rows_ == 0) every_ = INT64_MAX;
  }

  const char* row_ = nullptr;
  int64_t rowBytes_ = 0, stride_ = 0, rows_ = 0, offset_ = 0, every_ = INT64_MAX;
};

}  // namespace MF_CPU_NAMESPACE
