#include "ops/plan_checks.h"

namespace mf::ops {

std::tuple<Tensor, Tensor> quantize(Context& cx, const Tensor& w, int64_t groupSize, bool transposeW) {
  Call call(cx, "quantize");
  const View view = call.in("w", w).floating().minRank(2);
  call.require(view.shape.rank <= 3, ErrorKind::Shape,
               "w has shape " + toString(w.shape()) + ", expected 2 or 3 dimensions");
  const int64_t in = w.shape()[transposeW ? -1 : -2], out = w.shape()[transposeW ? -2 : -1];
  checkWidths(call, in, out);
  call.require(groupSize == 32 || groupSize == 64 || groupSize == 128, ErrorKind::Value,
               "groupSize is " + std::to_string(groupSize) + ", expected 32, 64 or 128");
  call.require(in % groupSize == 0, ErrorKind::Shape,
               "w has shape " + toString(w.shape()) + ", expected an input width that is a multiple of " +
                   std::to_string(groupSize));
  Shape values = w.shape(), scales;
  values.dims[values.rank - 2] = out;
  values.dims[values.rank - 1] = in;
  scales = values;
  scales.dims[scales.rank - 1] = in / groupSize;
  Tensor valuesOut = call.out(DType::i8, values), scalesOut = call.out(DType::f32, scales);
  call.run(&Backend::quantize, {view, valuesOut.view(), scalesOut.view(), groupSize, transposeW});
  return {valuesOut, scalesOut};
}

Tensor quantizedGemm(Context& cx, const Tensor& x, const Tensor& values, const Tensor& scales,
                     const std::optional<Tensor>& order, const std::optional<Tensor>& offsets, int64_t topK,
                     RowMap xRows, RowMap outRows, std::optional<UnaryKind> activation, DType outputDType) {
  Call call(cx, "quantizedGemm");
  QuantizedGemmArgs args{};
  args.x = call.in("x", x).floating().minRank(1);
  call.require(x.dtype() != DType::f64, ErrorKind::DType, "x has dtype f64, expected f32 or bf16");
  call.require(outputDType == x.dtype() || outputDType == DType::f32, ErrorKind::DType,
               std::string("outputDType is ") + dtypeName(outputDType) + ", expected that of x (" +
                   dtypeName(x.dtype()) + "), or f32");
  args.values = call.in("values", values).dtype(DType::i8).rank(order ? 3 : 2);
  const int64_t in = x.shape()[-1], width = values.shape()[-2];
  const Shape expected = order ? Shape{values.shape()[0], width, in} : Shape{width, in};
  call.in("values", values).shape(expected);
  args.scales = call.in("scales", scales).dtype(DType::f32).rank(expected.rank);
  const int64_t groups = scales.shape()[-1], group = groups > 0 ? in / groups : 0;
  call.in("scales", scales).shape(withLast(expected, groups));
  call.require(group > 0 && group * groups == in && group % 32 == 0, ErrorKind::Shape,
               "scales has shape " + toString(scales.shape()) + ", expected one per 32, 64 or 128 of " +
                   std::to_string(in) + " inputs");
  call.require(order.has_value() == offsets.has_value(), ErrorKind::Value,
               "order and offsets must be given together");
  args.topK = topK;
  args.xRows = xRows;
  args.outRows = outRows;
  Shape outShape = withLast(x.shape(), width);
  if (order && offsets) {
    checkPlan(call, *order, *offsets, topK, values.shape()[0]);
    checkRows(call, "x", args.x, xRows, order->numel(), topK);
    call.require(outRows != RowMap::Token, ErrorKind::Value, "outRows is by token, expected sorted or slot");
    args.order = order->view();
    args.offsets = offsets->view();
    outShape = {order->numel(), width};
  }
  if (activation) {
    checkActivation(call, *activation);
    args.epilogue = Epilogue::Activation;
    args.activation = *activation;
  }
  args.x.shape = asMatrix(x.shape());
  Tensor out = call.out(outputDType, outShape), widened = call.out(x.dtype(), {width, in});
  args.out = out.view();
  args.out.shape = asMatrix(out.shape());
  args.widened = widened.view();
  call.run(&Backend::quantizedGemm, args);
  return out;
}

}  // namespace mf::ops
