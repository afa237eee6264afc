#include <cmath>

#include "ops/ops.h"

namespace mf::ops {

void random(Context& cx, RandomKind kind, const Tensor& x, double a, double b, RandomKey key) {
  Call call(cx, kind == RandomKind::Normal ? "randomNormal" : "randomUniform");
  const View out = call.overwrite("x", x).floating();
  call.require(kind == RandomKind::Uniform || kind == RandomKind::Normal, ErrorKind::Value,
               "unknown distribution");
  call.require(std::isfinite(a) && std::isfinite(b), ErrorKind::Value, "the parameters must be finite");
  if (kind == RandomKind::Uniform)
    call.require(a <= b, ErrorKind::Value,
                 "low is " + std::to_string(a) + ", expected at most high, " + std::to_string(b));
  else
    call.require(b >= 0, ErrorKind::Value,
                 "standardDeviation is " + std::to_string(b) + ", expected at least 0");
  call.run(&Backend::random, {out, kind, a, b, key});
}

Tensor dropout(Context& cx, const Tensor& x, double p, RandomKey key) {
  Call call(cx, "dropout");
  const View in = call.in("x", x).floating();
  call.require(p >= 0 && p <= 1, ErrorKind::Value, "p is " + std::to_string(p) + ", expected 0 to 1");
  Tensor out = call.out(x.dtype(), x.shape());
  call.run(&Backend::dropout, {in, out.view(), p, key});
  return out;
}

}  // namespace mf::ops
