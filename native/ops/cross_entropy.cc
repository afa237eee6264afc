#include "ops/ops.h"
#include "ops/shapes.h"

namespace mf::ops {
namespace {

// Checks logits [.., V] of f64 or f32 and gives them as [N, V].
View logitsOf(Call& call, const Tensor& logits) {
  View view = call.in("logits", logits).dtype(accumulateDType(logits.dtype())).minRank(1);
  view.shape = asMatrix(logits.shape());
  return view;
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor> crossEntropy(Context& cx, const Tensor& logits, const Tensor& labels) {
  Call call(cx, "crossEntropy");
  const View in = logitsOf(call, logits);
  const View classes = call.in("labels", labels).integer().shape(rowShape(logits.shape()));
  Tensor loss = call.out(in.dtype, {}), lse = call.out(in.dtype, labels.shape()),
         count = call.out(in.dtype, {});
  call.run(&Backend::crossEntropy, {in, classes, loss.view(), lse.view(), count.view()});
  return {loss, lse, count};
}

Tensor crossEntropyBackward(Context& cx, const Tensor& logits, const Tensor& labels, const Tensor& lse,
                            const Tensor& count, const Tensor& dloss) {
  Call call(cx, "crossEntropyBackward");
  const View in = logitsOf(call, logits);
  const View classes = call.in("labels", labels).integer().shape(rowShape(logits.shape()));
  const View sums = call.in("lse", lse).dtype(in.dtype).shape(labels.shape());
  const View counted = call.in("count", count).dtype(in.dtype).numel(1);
  const View gradient = call.in("dloss", dloss).dtype(in.dtype).numel(1);
  Tensor dlogits = call.out(in.dtype, logits.shape());
  View out = dlogits.view();
  out.shape = in.shape;
  call.run(&Backend::crossEntropyBackward, {in, classes, sums, counted, gradient, out});
  return dlogits;
}

}  // namespace mf::ops
