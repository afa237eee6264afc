#include "ops/ops.h"

namespace mf::ops {

std::tuple<Tensor, Tensor> gradNorm(Context& cx, const std::vector<Tensor>& tensors) {
  Call call(cx, "gradNorm");
  call.require(!tensors.empty(), ErrorKind::Value, "tensors is empty, expected at least one tensor");
  DType acc = DType::f32;
  int64_t blocks = 0;
  for (const Tensor& tensor : tensors) {
    call.in("tensors", tensor).floating();
    if (tensor.dtype() == DType::f64) acc = DType::f64;
    blocks += (tensor.numel() + kTensorBlock - 1) / kTensorBlock;
  }
  Tensor partial = call.out(DType::f64, {blocks});
  Tensor norm = call.out(acc, {1});
  Tensor finite = call.out(DType::i32, {1});
  GradNormArgs args{{}, partial.view(), norm.view(), finite.view()};
  for (const Tensor& tensor : tensors) args.tensors.push_back(tensor.view());
  call.run(&Backend::gradNorm, std::move(args));
  return {norm, finite};
}

void clipGradients(Context& cx, const std::vector<Tensor>& tensors, const Tensor& norm, double maxNorm) {
  Call call(cx, "clipGradients");
  call.require(maxNorm > 0, ErrorKind::Value,
               "maxNorm is " + std::to_string(maxNorm) + ", expected a number above 0");
  ClipArgs args{{}, call.in("norm", norm).accumulating().numel(1), maxNorm};
  for (const Tensor& tensor : tensors) args.tensors.push_back(call.inout("tensors", tensor).floating());
  call.run(&Backend::clip, std::move(args));
}

}  // namespace mf::ops
