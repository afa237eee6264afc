#include "ops/ops.h"

namespace mf::ops {

namespace {

// A fresh block may come from failed work: whoever fills it by parts must find it clean.
struct Clean final : Command {
  void run(Backend&) override {}
};

}  // namespace

Tensor empty(Context& cx, DType dtype, const Shape& shape, Device device) {
  Call call(cx, "empty");
  call.on(device);
  Tensor tensor = call.out(dtype, shape);
  auto command = std::make_unique<Clean>();
  command->op = "empty";
  command->writes = {tensor.storage()};
  call.stream().enqueue(std::move(command));
  return tensor;
}

Tensor reshape(Context&, const Tensor& x, const Shape& shape) {
  if (shape.numel() != x.numel())
    throw Error(ErrorKind::Shape, "reshape: " + toString(x.shape()) + " cannot become " + toString(shape));
  return x.reinterpret(shape);
}

Tensor narrow(Context&, const Tensor& x, int64_t start, int64_t length) {
  if (x.shape().rank < 1)
    throw Error(ErrorKind::Shape, "narrow: x is a scalar, expected at least 1 dimension");
  const int64_t size = x.shape()[0];
  if (start < 0 || length < 0 || start > size || length > size - start)
    throw Error(ErrorKind::Shape, "narrow: [" + std::to_string(start) + ", " +
                                      std::to_string(start + length) + ") is outside dimension 0 of " +
                                      toString(x.shape()));
  Shape shape = x.shape();
  shape.dims[0] = length;
  return x.reinterpret(shape, size == 0 ? 0 : start * (x.numel() / size));
}

}  // namespace mf::ops
