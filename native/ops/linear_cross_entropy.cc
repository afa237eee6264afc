#include "ops/ops.h"
#include "ops/shapes.h"

namespace mf::ops {
namespace {

constexpr int64_t kChunkRows = 512;  // rows whose logits are held at a time

}  // namespace

std::tuple<Tensor, std::optional<Tensor>, std::optional<Tensor>> linearCrossEntropy(
    Context& cx, const Tensor& x, const Tensor& weight, const Tensor& labels, bool wantDx, bool wantDweight) {
  Call call(cx, "linearCrossEntropy");
  LinearCrossEntropyArgs args{};
  args.x = call.in("x", x).floating().minRank(1);
  args.x.shape = asMatrix(x.shape());
  const int64_t N = args.x.size(0), D = args.x.size(1);
  args.weight = call.in("weight", weight).dtype(x.dtype()).rank(2);
  const int64_t V = weight.shape()[0];
  call.in("weight", weight).shape({V, D});
  args.labels = call.in("labels", labels).integer().shape(rowShape(x.shape()));

  const DType acc = accumulateDType(x.dtype());
  const int64_t chunk = N < 1 ? 1 : N < kChunkRows ? N : kChunkRows;
  Tensor loss = call.out(acc, {}), count = call.out(acc, {});
  Tensor logits = call.out(acc, {chunk, V}), losses = call.out(acc, {chunk}), dlogits, dweightSum;
  args.loss = loss.view();
  args.count = count.view();
  args.logits = logits.view();
  args.losses = losses.view();
  std::optional<Tensor> dx, dweight;
  if (wantDx) dx = call.out(x.dtype(), x.shape());
  if (wantDweight) dweight = call.out(x.dtype(), weight.shape());
  if (dx) args.dx = dx->view();
  if (dweight) args.dweight = dweight->view();
  if (dx || dweight) {
    dlogits = acc == x.dtype() ? logits : call.out(x.dtype(), {chunk, V});
    args.dlogits = dlogits.view();
  }
  if (dweight && acc != x.dtype() && N > chunk) {
    dweightSum = call.out(acc, weight.shape());
    args.dweightSum = dweightSum.view();
  }
  call.run(&Backend::linearCrossEntropy, args);
  return {loss, dx, dweight};
}

}  // namespace mf::ops
