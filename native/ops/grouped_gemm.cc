#include "ops/ops.h"
#include "ops/plan_checks.h"

namespace mf::ops {
std::tuple<Tensor, std::optional<Tensor>> linear(Context& cx, const Tensor& x, const Tensor& weight,
                                                 const std::optional<Tensor>& bias,
                                                 std::optional<UnaryKind> activation, bool wantPreActivation,
                                                 DType out) {
  Call call(cx, "linear");
  GroupedGemmArgs args{};
  args.x = call.in("x", x).floating().minRank(1);
  args.x.shape = asMatrix(x.shape());
  args.w = call.in("weight", weight).dtype(x.dtype()).rank(2);
  const int64_t in = x.shape()[-1], width = weight.shape()[0];
  call.in("weight", weight).shape({width, in});
  checkWidths(call, in, width);
  if (bias) args.bias = call.in("bias", *bias).dtype(x.dtype()).shape({width});
  call.require(out == x.dtype() || (out == DType::f32 && x.dtype() == DType::bf16), ErrorKind::DType,
               std::string("outputDType is ") + dtypeName(out) + ", expected that of x (" +
                   dtypeName(x.dtype()) + "), or f32 beside bf16");
  Tensor y = call.out(out, withLast(x.shape(), width));
  args.out = y.view();
  args.out.shape = asMatrix(y.shape());
  args.topK = 1;
  args.transposeW = true;
  std::optional<Tensor> pre;
  if (activation) {
    checkActivation(call, *activation);
    args.epilogue = Epilogue::Activation;
    args.activation = *activation;
    if (wantPreActivation) pre = call.out(out, y.shape());
    if (pre) args.preActivation = pre->view();
  }
  call.run(&Backend::groupedGemm, args);
  return {y, pre};
}

Tensor linearInputGrad(Context& cx, const Tensor& dy, const Tensor& weight) {
  Call call(cx, "linearInputGrad");
  GroupedGemmArgs args{};
  args.x = call.in("dy", dy).floating().minRank(1);
  args.x.shape = asMatrix(dy.shape());
  args.w = call.in("weight", weight).dtype(dy.dtype()).rank(2);
  call.in("weight", weight).shape({dy.shape()[-1], weight.shape()[1]});
  Tensor dx = call.out(dy.dtype(), withLast(dy.shape(), weight.shape()[1]));
  args.out = dx.view();
  args.out.shape = asMatrix(dx.shape());
  args.topK = 1;
  call.run(&Backend::groupedGemm, args);
  return dx;
}

Tensor linearWeightGrad(Context& cx, const Tensor& x, const Tensor& dy) {
  Call call(cx, "linearWeightGrad");
  GroupedGemmWeightGradArgs args{};
  args.x = call.in("x", x).floating().minRank(1);
  args.x.shape = asMatrix(x.shape());
  args.dy = call.in("dy", dy).dtype(x.dtype()).shape(withLast(x.shape(), dy.shape()[-1]));
  args.dy.shape = asMatrix(dy.shape());
  Tensor dw = call.out(x.dtype(), {dy.shape()[-1], x.shape()[-1]});
  args.dw = dw.view();
  args.topK = 1;
  args.transposeOut = true;
  call.run(&Backend::groupedGemmWeightGrad, args);
  return dw;
}

std::tuple<Tensor, std::optional<Tensor>> groupedGemm(Context& cx, const Tensor& x, const Tensor& w,
                                                      const Tensor& order, const Tensor& offsets,
                                                      int64_t topK, RowMap xRows, RowMap outRows,
                                                      bool transposeW, std::optional<UnaryKind> activation,
                                                      bool wantPreActivation,
                                                      const std::optional<Tensor>& preActivation) {
  Call call(cx, "groupedGemm");
  GroupedGemmArgs args{};
  args.x = call.in("x", x).floating().rank(2);
  args.w = call.in("w", w).dtype(x.dtype()).rank(3);
  const int64_t E = w.shape()[0], in = x.shape()[1], width = w.shape()[transposeW ? 1 : 2];
  call.in("w", w).shape(transposeW ? Shape{E, width, in} : Shape{E, in, width});
  checkWidths(call, in, width);
  checkPlan(call, order, offsets, topK, E);
  const int64_t R = order.shape()[0];
  checkRows(call, "x", args.x, xRows, R, topK);
  call.require(outRows != RowMap::Token, ErrorKind::Value, "outRows is by token, expected sorted or slot");
  args.order = order.view();
  args.offsets = offsets.view();
  args.topK = topK;
  args.xRows = xRows;
  args.outRows = outRows;
  args.transposeW = transposeW;
  std::optional<Tensor> pre;
  if (activation) {
    checkActivation(call, *activation);
    args.activation = *activation;
    args.epilogue = preActivation ? Epilogue::ActivationGrad : Epilogue::Activation;
    if (preActivation)
      args.preActivation = call.in("preActivation", *preActivation).dtype(x.dtype()).shape({R, width});
    else if (wantPreActivation)
      args.preActivation = (pre = call.out(x.dtype(), {R, width}))->view();
  }
  Tensor out = call.out(x.dtype(), {R, width});
  args.out = out.view();
  call.run(&Backend::groupedGemm, args);
  return {out, pre};
}

Tensor groupedGemmWeightGrad(Context& cx, const Tensor& x, const Tensor& dy, const Tensor& order,
                             const Tensor& offsets, int64_t topK, RowMap xRows, RowMap dyRows) {
  Call call(cx, "groupedGemmWeightGrad");
  GroupedGemmWeightGradArgs args{};
  args.x = call.in("x", x).floating().rank(2);
  args.dy = call.in("dy", dy).dtype(x.dtype()).rank(2);
  call.in("offsets", offsets).rank(1);
  const int64_t E = offsets.shape()[0] - 1, R = order.numel();
  checkPlan(call, order, offsets, topK, E);
  checkRows(call, "x", args.x, xRows, R, topK);
  checkRows(call, "dy", args.dy, dyRows, R, topK);
  Tensor dw = call.out(x.dtype(), {E, x.shape()[1], dy.shape()[1]});
  args.dw = dw.view();
  args.order = order.view();
  args.offsets = offsets.view();
  args.topK = topK;
  args.xRows = xRows;
  args.dyRows = dyRows;
  call.run(&Backend::groupedGemmWeightGrad, args);
  return dw;
}

}  // namespace mf::ops
