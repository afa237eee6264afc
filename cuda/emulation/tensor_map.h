#pragma once
// What stands for CUtensorMap in the emulated build.
#include <cstdint>

namespace mf::cuda {

// Of a stack [planes, rows, width] of two-byte elements: boxes of [boxRows, 64], 128 bytes a row, swizzled.
struct alignas(64) TensorMap {
  const char* data;
  int64_t width, rows, planes, rowBytes, planeBytes;
  int boxRows;  // of 64 columns
};

}  // namespace mf::cuda
