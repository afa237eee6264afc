#include "cuda/tensor_map.h"

#include "core/error.h"

namespace mf::cuda {

TensorMap makeTensorMap(const TensorShape& shape, int boxRows) {
  const int64_t rowBytes = shape.rowStride * 2, planeBytes = shape.planeStride * 2;
  if (reinterpret_cast<uintptr_t>(shape.data) % 16 != 0 || rowBytes % 16 != 0 || planeBytes % 16 != 0 ||
      shape.width < 1 || shape.rows < 1 || shape.planes < 1 || boxRows < 1 || boxRows > 256)
    throw Error(ErrorKind::Kernel, "emulation: no tensor map can be made of this tensor");
  return {static_cast<const char*>(shape.data),
          shape.width,
          shape.rows,
          shape.planes,
          rowBytes,
          planeBytes,
          boxRows};
}

}  // namespace mf::cuda
