#include "ops/ops.h"
#include "ops/shapes.h"

namespace mf::ops {
namespace {

constexpr int64_t kGroupElements = 16384;  // elements a row group of the backward should have
constexpr int64_t kMaxGroups = 64;

const char* nameOf(NormKind kind, const char* layerNorm, const char* rmsNorm) {
  return kind == NormKind::RmsNorm ? rmsNorm : layerNorm;
}

void checkKind(const Call& call, NormKind kind) {
  call.require(kind == NormKind::LayerNorm || kind == NormKind::RmsNorm, ErrorKind::Value, "unknown kind");
}

int64_t rowGroups(int64_t N, int64_t D) {
  if (N == 0) return 0;
  const int64_t groups = N * D / kGroupElements;
  return groups < 1 ? 1 : groups > kMaxGroups ? kMaxGroups : groups;
}

}  // namespace

std::tuple<Tensor, std::optional<Tensor>, Tensor> norm(Context& cx, NormKind kind, const Tensor& x,
                                                       const Tensor& weight,
                                                       const std::optional<Tensor>& bias, double eps) {
  Call call(cx, nameOf(kind, "layerNorm", "rmsNorm"));
  checkKind(call, kind);
  call.require(eps >= 0, ErrorKind::Value, "eps is " + std::to_string(eps) + ", expected at least 0");
  const View in = call.in("x", x).floating().minRank(1);
  const Shape width{x.shape()[-1]};
  const View scale = call.in("weight", weight).dtype(x.dtype()).shape(width);
  View shift;
  if (bias) shift = call.in("bias", *bias).dtype(x.dtype()).shape(width);
  const DType acc = accumulateDType(x.dtype());
  Tensor out = call.out(x.dtype(), x.shape()), rstd = call.out(acc, rowShape(x.shape()));
  std::optional<Tensor> mean;
  if (kind == NormKind::LayerNorm) mean = call.out(acc, rowShape(x.shape()));
  call.run(&Backend::norm,
           {kind, in, scale, shift, out.view(), mean ? mean->view() : View{}, rstd.view(), eps});
  return {out, mean, rstd};
}

std::tuple<Tensor, Tensor, std::optional<Tensor>> normBackward(Context& cx, NormKind kind, const Tensor& x,
                                                               const Tensor& weight,
                                                               const std::optional<Tensor>& mean,
                                                               const Tensor& rstd, const Tensor& dy,
                                                               bool hasBias) {
  Call call(cx, nameOf(kind, "layerNormBackward", "rmsNormBackward"));
  checkKind(call, kind);
  const View in = call.in("x", x).floating().minRank(1);
  const int64_t D = x.shape()[-1];
  const Shape rows = rowShape(x.shape());
  const DType acc = accumulateDType(x.dtype());
  const View scale = call.in("weight", weight).dtype(x.dtype()).shape({D});
  call.require(mean.has_value() == (kind == NormKind::LayerNorm), ErrorKind::Value,
               "mean belongs to layerNorm and to it alone");
  View means;
  if (mean) means = call.in("mean", *mean).dtype(acc).shape(rows);
  const View rstds = call.in("rstd", rstd).dtype(acc).shape(rows);
  const View gradient = call.in("dy", dy).dtype(x.dtype()).shape(x.shape());
  Tensor dx = call.out(x.dtype(), x.shape()), dweight = call.out(x.dtype(), {D});
  std::optional<Tensor> dbias;
  if (hasBias) dbias = call.out(x.dtype(), {D});
  Tensor partial = call.out(acc, {rowGroups(rows.numel(), D), 2, D});
  call.run(&Backend::normBackward, {kind, in, scale, means, rstds, gradient, dx.view(), dweight.view(),
                                    dbias ? dbias->view() : View{}, partial.view()});
  return {dx, dweight, dbias};
}

}  // namespace mf::ops
