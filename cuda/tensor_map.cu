#include "cuda/tensor_map.h"

#include <cudaTypedefs.h>

#include "cuda/common.cuh"

namespace mf::cuda {
namespace {

// From the driver that is running: the addon is not linked to it, and loads without one.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto function = [] {
    void* address = nullptr;
    cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &address, 12000, cudaEnableDefault,
                                           &found),
          "cudaGetDriverEntryPoint");
    if (found != cudaDriverEntryPointSuccess)
      throw Error(ErrorKind::Kernel, "the CUDA driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(address);
  }();
  return function;
}

}  // namespace

TensorMap makeTensorMap(const TensorShape& shape, int boxRows) {
  TensorMap map;
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(shape.width), static_cast<cuuint64_t>(shape.rows),
                               static_cast<cuuint64_t>(shape.planes)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(shape.rowStride) * 2,
                                 static_cast<cuuint64_t>(shape.planeStride) * 2};
  const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(boxRows), 1}, steps[3] = {1, 1, 1};
  const CUresult result =
      encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(shape.data), sizes, strides, box,
                steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS)
    throw Error(ErrorKind::Kernel, "cuTensorMapEncodeTiled failed with " +
                                       std::to_string(static_cast<int>(result)) + " for [" +
                                       std::to_string(shape.planes) + ", " + std::to_string(shape.rows) +
                                       ", " + std::to_string(shape.width) + "]");
  return map;
}

}  // namespace mf::cuda
