#pragma once
// Checks that products of routed rows share.
#include <string>

#include "ops/ops.h"
#include "ops/shapes.h"

namespace mf::ops {
inline Shape withLast(const Shape& shape, int64_t last) {
  Shape result = shape;
  result.dims[result.rank - 1] = last;
  return result;
}

inline void checkActivation(const Call& call, UnaryKind kind) {
  call.require(kind >= UnaryKind::Gelu && kind <= UnaryKind::Relu, ErrorKind::Value,
               "activation must be gelu, geluNew, silu or relu");
}

inline void checkWidths(const Call& call, int64_t in, int64_t out) {
  call.require(
      in > 0 && out > 0, ErrorKind::Shape,
      "the widths are " + std::to_string(in) + " and " + std::to_string(out) + ", expected at least 1");
}

// Rows of x as the plan counts them: R, or R / topK where they lie by token.
inline void checkRows(const Call& call, const char* name, const View& x, RowMap rows, int64_t R,
                      int64_t topK) {
  const int64_t expected = rows == RowMap::Token ? R / topK : R;
  call.require(x.shape.rank == 2 && x.size(0) == expected, ErrorKind::Shape,
               std::string(name) + " has shape " + toString(x.shape) + ", expected " +
                   std::to_string(expected) + " rows for a plan of " + std::to_string(R) + " rows");
}

inline void checkPlan(Call& call, const Tensor& order, const Tensor& offsets, int64_t topK, int64_t E) {
  call.in("order", order).dtype(DType::i32).rank(1);
  call.in("offsets", offsets).dtype(DType::i32).shape({E + 1});
  call.require(topK > 0 && order.shape()[0] % topK == 0, ErrorKind::Shape,
               "order has " + std::to_string(order.shape()[0]) + " rows, expected a multiple of topK " +
                   std::to_string(topK));
}

}  // namespace mf::ops
