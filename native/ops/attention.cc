#include "ops/ops.h"

namespace mf::ops {
namespace {

// Shapes of q [B, Tq, K, H, C] and k [B, capacity, H, C], of which the first `keyLength` keys count.
AttentionShape checkedShape(Call& call, const Tensor& q, const Tensor& k, int64_t keyLength) {
  const View qView = call.in("q", q).floating().rank(5);
  const int64_t B = qView.size(0), Tq = qView.size(1), K = qView.size(2), H = qView.size(3),
                C = qView.size(4);
  const View kView = call.in("k", k).dtype(q.dtype()).rank(4);
  const int64_t capacity = kView.size(1);
  call.require(kView.shape == Shape{B, capacity, H, C}, ErrorKind::Shape,
               "k has shape " + toString(kView.shape) + ", expected " + toString({B, capacity, H, C}) +
                   " beside q of shape " + toString(qView.shape));
  call.require(C >= 1, ErrorKind::Shape,
               "q has shape " + toString(qView.shape) + ", expected a head width of at least 1");
  call.require(keyLength <= capacity, ErrorKind::Shape,
               "keyLength is " + std::to_string(keyLength) + ", expected at most the " +
                   std::to_string(capacity) + " rows of k");
  call.require(keyLength >= Tq, ErrorKind::Shape,
               "keyLength is " + std::to_string(keyLength) + ", expected at least the " + std::to_string(Tq) +
                   " positions of q");
  return {B, Tq, keyLength, K, H, C, capacity};
}

View checkedMask(Call& call, const char* name, const std::optional<Tensor>& mask, int64_t B, int64_t T) {
  if (!mask) return View{};
  return call.in(name, *mask).dtype(DType::i32).shape({B, T});
}

void checkKind(const Call& call, AttentionKind kind, bool attendCurrent, bool remainder) {
  call.require(
      kind == AttentionKind::StickBreaking || kind == AttentionKind::Softmax, ErrorKind::Value,
      "kind is " + std::to_string(static_cast<int>(kind)) + ", expected 0 (stick-breaking) or 1 (softmax)");
  call.require(
      kind == AttentionKind::StickBreaking || (attendCurrent && !remainder), ErrorKind::Value,
      "attendCurrent and remainder belong to stick-breaking attention, expected true and false with softmax");
}

Shape stateShape(const AttentionShape& s) {
  return {s.B, s.Tq, s.K, s.H};
}

}  // namespace

std::tuple<Tensor, std::optional<Tensor>, std::optional<Tensor>> attention(
    Context& cx, AttentionKind kind, const Tensor& q, const Tensor& k, const Tensor& v,
    const std::optional<Tensor>& keyMask, const std::optional<Tensor>& documentStart, int64_t keyLength,
    bool attendCurrent, bool remainder, bool keepState, const std::optional<Tensor>& position) {
  Call call(cx, "attention");
  checkKind(call, kind, attendCurrent, remainder);
  AttentionArgs args{};
  args.kind = kind;
  args.shape = checkedShape(call, q, k, keyLength);
  args.q = q.view();
  args.k = k.view();
  args.v = call.in("v", v).dtype(q.dtype()).shape(k.shape());
  args.keyMask = checkedMask(call, "keyMask", keyMask, args.shape.B, args.shape.Tk);
  args.documentStart = checkedMask(call, "documentStart", documentStart, args.shape.B, args.shape.Tq);
  args.attendCurrent = attendCurrent;
  args.remainder = remainder;
  if (position) args.position = call.in("position", *position).dtype(DType::i32).numel(1);

  const Tensor out = call.out(q.dtype(), q.shape());
  args.out = out.view();
  std::optional<Tensor> rowState, live;
  if (keepState) {
    rowState = call.out(accumulateDType(q.dtype()), stateShape(args.shape));
    args.rowState = rowState->view();
    if (kind == AttentionKind::StickBreaking) {
      live = call.out(DType::i32, stateShape(args.shape));
      args.live = live->view();
    }
  }
  call.run(&Backend::attention, args);
  return {out, rowState, live};
}

std::tuple<Tensor, Tensor, Tensor> attentionBackward(Context& cx, AttentionKind kind, const Tensor& q,
                                                     const Tensor& k, const Tensor& v,
                                                     const std::optional<Tensor>& keyMask,
                                                     const std::optional<Tensor>& documentStart,
                                                     int64_t keyLength, bool attendCurrent, bool remainder,
                                                     const std::optional<Tensor>& out, const Tensor& rowState,
                                                     const std::optional<Tensor>& live, const Tensor& dout) {
  Call call(cx, "attentionBackward");
  checkKind(call, kind, attendCurrent, remainder);
  AttentionBackwardArgs args{};
  args.kind = kind;
  args.shape = checkedShape(call, q, k, keyLength);
  const DType dtype = q.dtype(), acc = accumulateDType(dtype);
  args.q = q.view();
  args.k = k.view();
  args.v = call.in("v", v).dtype(dtype).shape(k.shape());
  args.keyMask = checkedMask(call, "keyMask", keyMask, args.shape.B, args.shape.Tk);
  args.documentStart = checkedMask(call, "documentStart", documentStart, args.shape.B, args.shape.Tq);
  args.attendCurrent = attendCurrent;
  args.remainder = remainder;
  args.rowState = call.in("rowState", rowState).dtype(acc).shape(stateShape(args.shape));
  if (kind == AttentionKind::StickBreaking) {
    if (!live) call.fail(ErrorKind::Value, "live is missing, expected what the forward op returned");
    args.live = call.in("live", *live).dtype(DType::i32).shape(stateShape(args.shape));
  } else {
    if (!out) call.fail(ErrorKind::Value, "out is missing, expected what the forward op returned");
    args.out = call.in("out", *out).dtype(dtype).shape(q.shape());
  }
  args.dout = call.in("dout", dout).dtype(dtype).shape(q.shape());

  const Tensor dq = call.out(dtype, q.shape()), dk = call.out(dtype, k.shape()),
               dv = call.out(dtype, v.shape());
  const Tensor workspace = call.out(acc, {call.stream().backend().attentionWorkspace(args.shape, dtype)});
  args.dq = dq.view();
  args.dk = dk.view();
  args.dv = dv.view();
  args.workspace = workspace.view();
  call.run(&Backend::attentionBackward, args);
  return {dq, dk, dv};
}

Tensor attentionWeights(Context& cx, AttentionKind kind, const Tensor& q, const Tensor& k,
                        const std::optional<Tensor>& keyMask, const std::optional<Tensor>& documentStart,
                        int64_t keyLength, bool attendCurrent) {
  Call call(cx, "attentionWeights");
  checkKind(call, kind, attendCurrent, false);
  AttentionWeightsArgs args{};
  args.kind = kind;
  args.shape = checkedShape(call, q, k, keyLength);
  const AttentionShape& s = args.shape;
  args.q = q.view();
  args.k = k.view();
  args.keyMask = checkedMask(call, "keyMask", keyMask, s.B, s.Tk);
  args.documentStart = checkedMask(call, "documentStart", documentStart, s.B, s.Tq);
  args.attendCurrent = attendCurrent;
  const Tensor weights = call.out(accumulateDType(q.dtype()), {s.B, s.K, s.H, s.Tq, s.Tk});
  args.weights = weights.view();
  call.run(&Backend::attentionWeights, args);
  return weights;
}

}  // namespace mf::ops
