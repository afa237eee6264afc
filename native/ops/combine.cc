#include "ops/ops.h"

namespace mf::ops {
namespace {

// y [N * K, D]: the number of tokens N.
int64_t tokensOf(const Call& call, const Tensor& y, int64_t topK) {
  call.require(topK >= 1, ErrorKind::Value, "topK is " + std::to_string(topK) + ", expected at least 1");
  call.require(y.shape()[0] % topK == 0, ErrorKind::Shape,
               "y has shape " + toString(y.shape()) +
                   ", expected a multiple of topK = " + std::to_string(topK) + " rows");
  return y.shape()[0] / topK;
}

View checkedGates(Call& call, const std::optional<Tensor>& gates, DType dtype, int64_t N, int64_t topK) {
  if (!gates) return View{};
  return call.in("gates", *gates).dtype(accumulateDType(dtype)).shape({N, topK});
}

}  // namespace

Tensor combine(Context& cx, const Tensor& y, const std::optional<Tensor>& gates, int64_t topK) {
  Call call(cx, "combine");
  const View yView = call.in("y", y).floating().rank(2);
  const int64_t N = tokensOf(call, y, topK);
  const View gatesView = checkedGates(call, gates, y.dtype(), N, topK);
  Tensor out = call.out(y.dtype(), {N, yView.size(1)});
  call.run(&Backend::combine, {yView, gatesView, out.view(), topK});
  return out;
}

std::tuple<std::optional<Tensor>, std::optional<Tensor>> combineBackward(Context& cx, const Tensor& dout,
                                                                         const Tensor& y,
                                                                         const std::optional<Tensor>& gates,
                                                                         int64_t topK, bool wantY,
                                                                         bool wantGates) {
  Call call(cx, "combineBackward");
  const View yView = call.in("y", y).floating().rank(2);
  const int64_t N = tokensOf(call, y, topK);
  const View doutView = call.in("dout", dout).dtype(y.dtype()).shape({N, yView.size(1)});
  const View gatesView = checkedGates(call, gates, y.dtype(), N, topK);
  std::optional<Tensor> dy, dgates;
  if (wantY) dy = call.out(y.dtype(), y.shape());
  if (wantGates) dgates = call.out(accumulateDType(y.dtype()), {N, topK});
  call.run(&Backend::combineBackward,
           {doutView, yView, gatesView, dy ? dy->view() : View{}, dgates ? dgates->view() : View{}, topK});
  return {dy, dgates};
}

}  // namespace mf::ops
