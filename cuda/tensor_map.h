#pragma once
// Bulk tensor copies take a map of the tensor that the host makes.
#include <cstdint>

#ifdef MF_CUDA_EMULATED
#include "cuda/emulation/tensor_map.h"
#else
#include <cuda.h>
namespace mf::cuda {
using TensorMap = CUtensorMap;
}
#endif

namespace mf::cuda {

// A stack [planes, rows, width] of bf16, of which boxes of [boxRows, 64] are copied: 128 bytes a row,
// swizzled, zeros outside. Data, rows and planes begin at multiples of 16 bytes. Strides in elements.
struct TensorShape {
  const void* data;
  int64_t width, rows, planes, rowStride, planeStride;
};
TensorMap makeTensorMap(const TensorShape& shape, int boxRows);

}  // namespace mf::cuda
