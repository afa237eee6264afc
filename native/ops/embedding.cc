#include "ops/ops.h"

namespace mf::ops {

Tensor embedding(Context& cx, const Tensor& weight, const Tensor& ids) {
  Call call(cx, "embedding");
  const View rows = call.in("weight", weight).floating().rank(2);
  const View tokens = call.in("ids", ids).integer();
  Shape shape = ids.shape();
  call.require(shape.rank < kMaxRank, ErrorKind::Shape, "ids has too many dimensions, expected at most 5");
  shape.dims[shape.rank++] = weight.shape()[1];
  Tensor out = call.out(weight.dtype(), shape);
  call.run(&Backend::embedding, {rows, tokens, out.view()});
  return out;
}

Tensor embeddingBackward(Context& cx, const Tensor& dy, const Tensor& ids, int64_t V) {
  Call call(cx, "embeddingBackward");
  const View gradient = call.in("dy", dy).floating().minRank(1);
  const View tokens = call.in("ids", ids).integer();
  const int64_t D = dy.shape()[-1];
  call.in("dy", dy).numel(ids.numel() * D);
  call.require(V >= 0, ErrorKind::Shape, "V is " + std::to_string(V) + ", expected at least 0");
  Tensor dweight = call.out(dy.dtype(), {V, D});
  call.run(&Backend::embeddingBackward, {gradient, tokens, dweight.view()});
  return dweight;
}

}  // namespace mf::ops
