#include <cmath>

#include "ops/ops.h"

namespace mf::ops {

Tensor rotary(Context& cx, const Tensor& x, const Tensor& positions, int64_t rotaryDim, double base,
              bool inverse) {
  Call call(cx, "rotary");
  const View xView = call.in("x", x).floating().rank(4);
  const View positionsView =
      call.in("positions", positions).dtype(DType::i32).shape({xView.size(0), xView.size(1)});
  call.require(rotaryDim >= 0 && rotaryDim % 2 == 0 && rotaryDim <= xView.size(3), ErrorKind::Value,
               "rotaryDim is " + std::to_string(rotaryDim) + ", expected an even number of 0 to " +
                   std::to_string(xView.size(3)) + " channels");
  call.require(std::isfinite(base) && base > 0, ErrorKind::Value,
               "base is " + std::to_string(base) + ", expected a number above 0");
  const Tensor out = call.out(x.dtype(), x.shape());
  call.run(&Backend::rotary, {xView, positionsView, out.view(), rotaryDim, base, inverse});
  return out;
}

}  // namespace mf::ops
