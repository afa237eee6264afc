#include "ops/ops.h"

namespace mf::ops {
namespace {

template <typename Kind>
void checkKind(const Call& call, Kind kind, Kind last) {
  call.require(kind >= Kind{} && kind <= last, ErrorKind::Value,
               "kind is " + std::to_string(static_cast<int>(kind)) + ", expected 0 to " +
                   std::to_string(static_cast<int>(last)));
}

// Whether b, leading ones aside, has the trailing dimensions of a.
bool repeats(const Shape& a, const Shape& b) {
  int first = 0;
  while (first < b.rank && b[first] == 1) ++first;
  const int rank = b.rank - first;
  if (rank > a.rank) return false;
  for (int i = 1; i <= rank; ++i)
    if (a[-i] != b[-i]) return false;
  return true;
}

}  // namespace

Tensor cast(Context& cx, const Tensor& x, DType dtype) {
  Call call(cx, "cast");
  const View in = call.in("x", x);
  call.require(dtype <= DType::u8, ErrorKind::DType, "unknown dtype");
  Tensor out = call.out(dtype, x.shape());
  call.run(&Backend::copy, {in, out.view()});
  return out;
}

void copyInto(Context& cx, const Tensor& x, const Tensor& y) {
  Call call(cx, "copyInto");
  const View in = call.in("x", x);
  call.run(&Backend::copy, {in, call.overwrite("y", y).shape(x.shape())});
}

void fill(Context& cx, const Tensor& x, double value) {
  Call call(cx, "fill");
  call.run(&Backend::fill, {call.overwrite("x", x), value});
}

Tensor unary(Context& cx, UnaryKind kind, const Tensor& x) {
  Call call(cx, "unary");
  checkKind(call, kind, UnaryKind::Softplus);
  const View in = call.in("x", x).floating();
  Tensor out = call.out(x.dtype(), x.shape());
  call.run(&Backend::unary, {kind, in, out.view()});
  return out;
}

Tensor unaryBackward(Context& cx, UnaryKind kind, const Tensor& x, const Tensor& dy) {
  Call call(cx, "unaryBackward");
  checkKind(call, kind, UnaryKind::Softplus);
  const View in = call.in("x", x).floating();
  const View gradient = call.in("dy", dy).dtype(x.dtype()).shape(x.shape());
  Tensor dx = call.out(x.dtype(), x.shape());
  call.run(&Backend::unaryBackward, {kind, in, gradient, dx.view()});
  return dx;
}

Tensor binary(Context& cx, BinaryKind kind, const Tensor& a, const Tensor& b) {
  static constexpr const char* names[] = {"add", "sub", "mul", "div"};
  const bool known = kind >= BinaryKind::Add && kind <= BinaryKind::Div;
  Call call(cx, known ? names[static_cast<int>(kind)] : "binary");
  checkKind(call, kind, BinaryKind::Div);
  const View left = call.in("a", a).floating();
  const View right = call.in("b", b).dtype(a.dtype());
  call.require(
      repeats(a.shape(), b.shape()), ErrorKind::Shape,
      "b has shape " + toString(b.shape()) + ", expected trailing dimensions of a's " + toString(a.shape()));
  Tensor out = call.out(a.dtype(), a.shape());
  call.run(&Backend::binary, {kind, left, right, out.view()});
  return out;
}

Tensor affine(Context& cx, const Tensor& x, double alpha, double beta) {
  Call call(cx, "affine");
  const View in = call.in("x", x).floating();
  Tensor out = call.out(x.dtype(), x.shape());
  call.run(&Backend::affine, {in, out.view(), alpha, beta});
  return out;
}

void accumulate(Context& cx, const Tensor& x, const Tensor& y, double alpha) {
  Call call(cx, "accumulate");
  const View from = call.in("x", x).floating();
  call.run(&Backend::accumulate, {from, call.inout("y", y).floating().shape(x.shape()), alpha});
}

void increment(Context& cx, const Tensor& x) {
  Call call(cx, "increment");
  call.run(&Backend::increment, {call.inout("x", x).dtype(DType::i32)});
}

}  // namespace mf::ops
