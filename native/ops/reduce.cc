#include "ops/ops.h"
#include "ops/shapes.h"

namespace mf::ops {
namespace {

// A shape cut at dimensions `first` and `last`.
struct Cut {
  int64_t outer = 1, inner = 1, tail = 1;
  Shape rest;  // without [first, last)
};

Cut cut(const Shape& shape, int64_t first, int64_t last) {
  Cut result;
  for (int i = 0; i < shape.rank; ++i) {
    (i < first ? result.outer : i < last ? result.inner : result.tail) *= shape[i];
    if (i < first || i >= last) result.rest.dims[result.rest.rank++] = shape[i];
  }
  return result;
}

void checkRange(const Call& call, const Shape& shape, int64_t first, int64_t last) {
  call.require(first >= 0 && first <= last && last <= shape.rank, ErrorKind::Shape,
               "dimensions " + std::to_string(first) + " to " + std::to_string(last) + " of " +
                   toString(shape) + " do not exist");
}

}  // namespace

Tensor sum(Context& cx, const Tensor& x, int64_t first, int64_t last) {
  Call call(cx, "sum");
  const View in = call.in("x", x).floating();
  checkRange(call, x.shape(), first, last);
  const Cut c = cut(x.shape(), first, last);
  Tensor out = call.out(x.dtype(), c.rest);
  call.run(&Backend::sum, {in, out.view(), c.outer, c.inner, c.tail});
  return out;
}

Tensor expand(Context& cx, const Tensor& x, const Shape& shape, int64_t first, int64_t last) {
  Call call(cx, "expand");
  checkRange(call, shape, first, last);
  const Cut c = cut(shape, first, last);
  const View in = call.in("x", x).floating().shape(c.rest);
  Tensor out = call.out(x.dtype(), shape);
  call.run(&Backend::expand, {in, out.view(), c.outer, c.inner, c.tail});
  return out;
}

Tensor mulRows(Context& cx, const Tensor& x, const Tensor& s) {
  Call call(cx, "mulRows");
  const View in = call.in("x", x).floating().minRank(1);
  const View factors = call.in("s", s).dtype(accumulateDType(x.dtype())).numel(rowShape(x.shape()).numel());
  Tensor out = call.out(x.dtype(), x.shape());
  call.run(&Backend::mulRows, {in, factors, out.view()});
  return out;
}

void scaleInPlace(Context& cx, const Tensor& x, const Tensor& s) {
  Call call(cx, "scaleInPlace");
  const View in = call.inout("x", x).floating();
  const View factor = call.in("s", s).dtype(accumulateDType(x.dtype())).numel(1);
  call.run(&Backend::mulRows, {in, factor, in});
}

Tensor rowDot(Context& cx, const Tensor& a, const Tensor& b) {
  Call call(cx, "rowDot");
  const View left = call.in("a", a).floating().minRank(1);
  const View right = call.in("b", b).dtype(a.dtype()).shape(a.shape());
  Tensor out = call.out(accumulateDType(a.dtype()), rowShape(a.shape()));
  call.run(&Backend::rowDot, {left, right, out.view()});
  return out;
}

}  // namespace mf::ops
