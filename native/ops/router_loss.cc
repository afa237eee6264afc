#include "ops/ops.h"

namespace mf::ops {
namespace {

View checkedMask(Call& call, const std::optional<Tensor>& mask, int64_t N) {
  if (!mask) return View{};
  return call.in("mask", *mask).dtype(DType::i32).shape({N});
}

View checkedLogits(Call& call, const Tensor& logits) {
  const View view = call.in("logits", logits).accumulating().rank(2);
  call.require(view.size(1) >= 1, ErrorKind::Shape,
               "logits has shape " + toString(logits.shape()) + ", expected at least 1 expert");
  return view;
}

}  // namespace

std::tuple<Tensor, Tensor> routerLoss(Context& cx, const Tensor& logits, const Tensor& probs,
                                      const Tensor& gates, const Tensor& experts,
                                      const std::optional<Tensor>& mask) {
  Call call(cx, "routerLoss");
  const View logitsView = checkedLogits(call, logits);
  const int64_t N = logitsView.size(0), E = logitsView.size(1);
  const DType acc = logits.dtype();
  const View probsView = call.in("probs", probs).dtype(acc).shape({N, E});
  const View expertsView = call.in("experts", experts).dtype(DType::i32).rank(2);
  call.require(expertsView.size(0) == N, ErrorKind::Shape,
               "experts has shape " + toString(experts.shape()) + ", expected one row for each of " +
                   std::to_string(N) + " tokens");
  const View gatesView = call.in("gates", gates).dtype(acc).shape(experts.shape());
  const View maskView = checkedMask(call, mask, N);
  Tensor losses = call.out(acc, {4});
  Tensor stats = call.out(acc, {3, E});
  call.run(&Backend::routerLoss,
           {logitsView, probsView, gatesView, expertsView, maskView, losses.view(), stats.view()});
  return {losses, stats};
}

Tensor routerLossBackward(Context& cx, const Tensor& logits, const Tensor& probs,
                          const std::optional<Tensor>& mask, const Tensor& stats, const Tensor& dout) {
  Call call(cx, "routerLossBackward");
  const View logitsView = checkedLogits(call, logits);
  const int64_t N = logitsView.size(0), E = logitsView.size(1);
  const DType acc = logits.dtype();
  const View probsView = call.in("probs", probs).dtype(acc).shape({N, E});
  const View maskView = checkedMask(call, mask, N);
  const View statsView = call.in("stats", stats).dtype(acc).shape({3, E});
  const View doutView = call.in("dout", dout).dtype(acc).shape({4});
  Tensor dlogits = call.out(acc, {N, E});
  call.run(&Backend::routerLossBackward,
           {logitsView, probsView, maskView, statsView, doutView, dlogits.view()});
  return dlogits;
}

}  // namespace mf::ops
