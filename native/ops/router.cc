#include <limits>

#include "ops/ops.h"

namespace mf::ops {
namespace {

// Sorted rows are numbered in i32.
void requireRows(const Call& call, int64_t tokens, int64_t topK) {
  constexpr int64_t most = std::numeric_limits<int32_t>::max();
  call.require(topK == 0 || tokens <= most / topK, ErrorKind::Shape,
               std::to_string(tokens) + " tokens with " + std::to_string(topK) +
                   " experts each are more than 2^31 - 1 rows");
}

void requireExperts(const Call& call, int64_t numExperts) {
  call.require(numExperts >= 1 && numExperts < std::numeric_limits<int32_t>::max(), ErrorKind::Value,
               "numExperts is " + std::to_string(numExperts) + ", expected at least 1");
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> route(Context& cx, const Tensor& logits,
                                                                 int64_t topK, int64_t sample,
                                                                 const RandomKey& key) {
  Call call(cx, "route");
  const View logitsView = call.in("logits", logits).accumulating().rank(2);
  const int64_t N = logitsView.size(0), E = logitsView.size(1);
  call.require(
      topK >= 1 && topK <= E, ErrorKind::Shape,
      "k is " + std::to_string(topK) + ", expected 1 to the number of experts, " + std::to_string(E));
  call.require(sample >= 0 && sample <= topK, ErrorKind::Value,
               "sample is " + std::to_string(sample) + ", expected 0 to k = " + std::to_string(topK));
  requireRows(call, N, topK);
  Tensor probs = call.out(logits.dtype(), {N, E});
  Tensor gates = call.out(logits.dtype(), {N, topK});
  Tensor experts = call.out(DType::i32, {N, topK});
  Tensor order = call.out(DType::i32, {N * topK});
  Tensor inverse = call.out(DType::i32, {N * topK});
  Tensor offsets = call.out(DType::i32, {E + 1});
  call.run(&Backend::route, {logitsView,
                             probs.view(),
                             gates.view(),
                             {experts.view(), offsets.view(), order.view(), inverse.view()},
                             sample,
                             key});
  return {probs, gates, experts, order, inverse, offsets};
}

std::tuple<Tensor, Tensor, Tensor> routePlan(Context& cx, const Tensor& experts, int64_t numExperts) {
  Call call(cx, "routePlan");
  const View view = call.in("experts", experts).dtype(DType::i32).rank(2);
  requireExperts(call, numExperts);
  requireRows(call, view.size(0), view.size(1));
  const int64_t R = view.numel();
  Tensor order = call.out(DType::i32, {R});
  Tensor inverse = call.out(DType::i32, {R});
  Tensor offsets = call.out(DType::i32, {numExperts + 1});
  call.run(&Backend::routePlan, {view, offsets.view(), order.view(), inverse.view()});
  return {order, inverse, offsets};
}

Tensor gatherGates(Context& cx, const Tensor& probs, const Tensor& experts) {
  Call call(cx, "gatherGates");
  const View probsView = call.in("probs", probs).accumulating().rank(2);
  const View expertsView = call.in("experts", experts).dtype(DType::i32).rank(2);
  call.require(expertsView.size(0) == probsView.size(0), ErrorKind::Shape,
               "experts has shape " + toString(experts.shape()) + ", expected one row for each of " +
                   std::to_string(probsView.size(0)) + " tokens");
  Tensor gates = call.out(probs.dtype(), experts.shape());
  call.run(&Backend::gatherGates, {probsView, expertsView, gates.view()});
  return gates;
}

Tensor gatherGatesBackward(Context& cx, const Tensor& dgates, const Tensor& experts, int64_t numExperts) {
  Call call(cx, "gatherGatesBackward");
  const View expertsView = call.in("experts", experts).dtype(DType::i32).rank(2);
  const View dgatesView = call.in("dgates", dgates).accumulating().shape(experts.shape());
  requireExperts(call, numExperts);
  Tensor dprobs = call.out(dgates.dtype(), {expertsView.size(0), numExperts});
  call.run(&Backend::gatherGatesBackward, {dgatesView, expertsView, dprobs.view()});
  return dprobs;
}

}  // namespace mf::ops
