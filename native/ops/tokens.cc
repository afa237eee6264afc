#include "ops/ops.h"

namespace mf::ops {

Tensor shiftLabels(Context& cx, const Tensor& labels) {
  Call call(cx, "shiftLabels");
  const View in = call.in("labels", labels).integer().rank(2);
  Tensor out = call.out(DType::i32, labels.shape());
  call.run(&Backend::shiftLabels, {in, out.view()});
  return out;
}

Tensor lastTokenRows(Context& cx, const Tensor& ids, int64_t pad) {
  Call call(cx, "lastTokenRows");
  const View in = call.in("ids", ids).integer().rank(2);
  call.require(ids.shape()[1] > 0, ErrorKind::Shape, "ids has rows without tokens");
  Tensor rows = call.out(DType::i32, {ids.shape()[0]});
  call.run(&Backend::lastTokenRows, {in, rows.view(), pad});
  return rows;
}

}  // namespace mf::ops
