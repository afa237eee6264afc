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
  // Room for rows that begin at multiples of 16 bytes, for backends that want them to.
  const Shape memory{chunk, (V + 7) / 8 * 8};
  Tensor logits = call.out(acc, memory), losses = call.out(acc, {chunk}), dlogits, dweightSum;
  args.loss = loss.view();
  args.count = count.view();
  args.logits = logits.view();
  args.logits.shape = {chunk, V};
  args.losses = losses.view();
  std::optional<Tensor> dx, dweight;
  if (wantDx) dx = call.out(x.dtype(), x.shape());
  if (wantDweight) dweight = call.out(x.dtype(), weight.shape());
  if (dx) args.dx = dx->view();
  if (dweight) args.dweight = dweight->view();
  if (dx || dweight) {
    dlogits = acc == x.dtype() ? logits : call.out(x.dtype(), memory);
    args.dlogits = dlogits.view();
    args.dlogits.shape = {chunk, V};
  }
  if (dweight && acc != x.dtype() && N > chunk) {
    dweightSum = call.out(acc, weight.shape());
    args.dweightSum = dweightSum.view();
  }
  call.run(&Backend::linearCrossEntropy, args);
  return {loss, dx, dweight};
}

}  // namespace mf::ops
