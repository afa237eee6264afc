#include "ops/ops.h"

namespace mf::ops {

Tensor softmax(Context& cx, const Tensor& x, bool log) {
  Call call(cx, log ? "logSoftmax" : "softmax");
  const View in = call.in("x", x).floating().minRank(1);
  Tensor out = call.out(x.dtype(), x.shape());
  call.run(&Backend::softmax, {in, out.view(), log});
  return out;
}

Tensor softmaxBackward(Context& cx, const Tensor& y, const Tensor& dy, bool log) {
  Call call(cx, log ? "logSoftmaxBackward" : "softmaxBackward");
  const View out = call.in("y", y).floating().minRank(1);
  const View gradient = call.in("dy", dy).dtype(y.dtype()).shape(y.shape());
  Tensor dx = call.out(y.dtype(), y.shape());
  call.run(&Backend::softmaxBackward, {out, gradient, dx.view(), log});
  return dx;
}

}  // namespace mf::ops
