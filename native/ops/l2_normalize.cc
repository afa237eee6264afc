#include "ops/ops.h"
#include "ops/shapes.h"

namespace mf::ops {

std::tuple<Tensor, Tensor> l2Normalize(Context& cx, const Tensor& x) {
  Call call(cx, "l2Normalize");
  const View in = call.in("x", x).floating().minRank(1);
  Tensor out = call.out(x.dtype(), x.shape());
  Tensor norm = call.out(accumulateDType(x.dtype()), rowShape(x.shape()));
  call.run(&Backend::l2Normalize, {in, out.view(), norm.view()});
  return {out, norm};
}

Tensor l2NormalizeBackward(Context& cx, const Tensor& x, const Tensor& norm, const Tensor& dy) {
  Call call(cx, "l2NormalizeBackward");
  const View in = call.in("x", x).floating().minRank(1);
  const View norms = call.in("norm", norm).dtype(accumulateDType(x.dtype())).shape(rowShape(x.shape()));
  const View gradient = call.in("dy", dy).dtype(x.dtype()).shape(x.shape());
  Tensor dx = call.out(x.dtype(), x.shape());
  call.run(&Backend::l2NormalizeBackward, {in, norms, gradient, dx.view()});
  return dx;
}

}  // namespace mf::ops
