#pragma once
// Shapes that several ops derive from their arguments'.
#include "core/view.h"

namespace mf::ops {

// [.., D] without its last dimension: one entry per row.
inline Shape rowShape(const Shape& shape) {
  Shape rows = shape;
  --rows.rank;
  return rows;
}

// [.., D] as [rows, D].
inline Shape asMatrix(const Shape& shape) {
  return {rowShape(shape).numel(), shape[-1]};
}

}  // namespace mf::ops
