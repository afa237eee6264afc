#pragma once
// The signature of every op, as JavaScript calls it. Each checks its arguments, allocates its results and
// enqueues; none waits. Shapes: core/backend.h.
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/call.h"

namespace mf::ops {

// --- tensor.cc: memory, no kernels
Tensor empty(Context& cx, DType dtype, const Shape& shape, Device device);
Tensor reshape(Context& cx, const Tensor& x, const Shape& shape);  // shares memory
Tensor narrow(Context& cx, const Tensor& x, int64_t start,
              int64_t length);  // along dimension 0; shares memory

}  // namespace mf::ops
