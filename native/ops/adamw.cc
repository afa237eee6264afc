#include <cmath>

#include "ops/ops.h"

namespace mf::ops {
namespace {

void requireNumber(const Call& call, const char* name, double value, bool inRange, const char* expected) {
  call.require(std::isfinite(value) && inRange, ErrorKind::Value,
               std::string(name) + " is " + std::to_string(value) + ", expected " + expected);
}

void requireGradient(const Call& call, const Tensor& parameter, const Tensor& gradient) {
  call.require(
      gradient.dtype() == parameter.dtype() || gradient.dtype() == accumulateDType(parameter.dtype()),
      ErrorKind::DType,
      std::string("a gradient has dtype ") + dtypeName(gradient.dtype()) + ", expected " +
          dtypeName(parameter.dtype()) + " as its parameter");
}

}  // namespace

void adamW(Context& cx, const std::vector<Tensor>& parameters, const std::vector<Tensor>& gradients,
           const std::vector<Tensor>& m, const std::vector<Tensor>& v,
           const std::vector<std::optional<Tensor>>& master, const std::vector<Tensor>& step,
           const std::optional<Tensor>& finite, double lr, double beta1, double beta2, double eps,
           double weightDecay) {
  Call call(cx, "adamW");
  const size_t count = parameters.size();
  call.require(count > 0, ErrorKind::Value, "parameters is empty, expected at least one tensor");
  for (size_t given : {gradients.size(), m.size(), v.size(), master.size(), step.size()})
    call.require(given == count, ErrorKind::Shape,
                 "a list of " + std::to_string(given) + " beside " + std::to_string(count) + " parameters");
  requireNumber(call, "lr", lr, lr >= 0, "a number of at least 0");
  requireNumber(call, "beta1", beta1, beta1 >= 0 && beta1 < 1, "a number in [0, 1)");
  requireNumber(call, "beta2", beta2, beta2 >= 0 && beta2 < 1, "a number in [0, 1)");
  requireNumber(call, "eps", eps, eps >= 0, "a number of at least 0");
  requireNumber(call, "weightDecay", weightDecay, weightDecay >= 0, "a number of at least 0");

  AdamWArgs args{};
  for (size_t i = 0; i < count; ++i) {
    const DType dtype = parameters[i].dtype(), acc = accumulateDType(dtype);
    const Shape& shape = parameters[i].shape();
    args.parameters.push_back(call.inout("parameters", parameters[i]).floating());
    requireGradient(call, parameters[i], gradients[i]);
    args.gradients.push_back(call.in("gradients", gradients[i]).shape(shape));
    args.m.push_back(call.inout("m", m[i]).dtype(acc).shape(shape));
    args.v.push_back(call.inout("v", v[i]).dtype(acc).shape(shape));
    const auto& own = master[i];
    call.require(own.has_value() == (dtype == DType::bf16), ErrorKind::Value,
                 "master must be given for bf16 parameters and for no others");
    args.master.push_back(own ? View(call.inout("master", *own).dtype(DType::f32).shape(shape)) : View{});
    args.step.push_back(call.inout("step", step[i]).dtype(DType::i32).numel(1));
  }
  if (finite) args.finite = call.in("finite", *finite).dtype(DType::i32).numel(1);
  args.lr = lr;
  args.beta1 = beta1;
  args.beta2 = beta2;
  args.eps = eps;
  args.weightDecay = weightDecay;
  call.run(&Backend::adamW, std::move(args));
}

}  // namespace mf::ops
