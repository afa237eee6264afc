// Attention: dispatch by kind, the size of the backward workspace, and the weights themselves for inspection.
#include <cmath>
#include <string>

#include "cpu/attention_backward.h"
#include "cpu/stick_breaking.h"

namespace MF_CPU_NAMESPACE {
namespace {

// The weights of one row over its visible keys [start, limit], from logits in units of log 2, right to
// left.
void stickBreakingRow(const int32_t* keyMask, int64_t start, int64_t limit, double* row) {
  double stick = 1;
  for (int64_t j = limit; j >= start; --j) {
    if (keyMask && !keyMask[j]) {
      row[j] = 0;
      continue;
    }
    const double odds = std::exp2(row[j] < 1000 ? row[j] : 1000.0), rest = 1 / (1 + odds);
    row[j] = odds * rest * stick;
    stick *= rest;
  }
}

void softmaxRow(const int32_t* keyMask, int64_t start, int64_t limit, double* row) {
  double top = -INFINITY, sum = 0;
  for (int64_t j = start; j <= limit; ++j)
    if ((!keyMask || keyMask[j]) && row[j] > top) top = row[j];
  for (int64_t j = start; j <= limit; ++j) {
    row[j] = !keyMask || keyMask[j] ? std::exp2(row[j] - top) : 0;
    sum += row[j];
  }
  for (int64_t j = start; j <= limit; ++j) row[j] = sum == 0 ? 0 : row[j] / sum;
}

template <typename T>
void weightRows(const AttentionWeightsArgs& args) {
  using A = Accumulate<T>;
  constexpr int64_t W = kNarrowRows;
  const AttentionShape& s = args.shape;
  const AttentionInput<T> in{s,
                             args.q.as<T>(),
                             args.k.as<T>(),
                             nullptr,
                             args.keyMask.as<int32_t>(),
                             args.documentStart.as<int32_t>(),
                             args.attendCurrent,
                             false,
                             s.Tk};
  const int64_t blocks = (in.rows() + W - 1) / W, C = s.C;
  forTasks(s.B * s.H * blocks, s.B * s.H * in.rows() * s.Tk * C, [&](int64_t task) {
    const int64_t b = task / blocks / s.H, h = task / blocks % s.H;
    const int32_t* keyMask = in.maskOf(b);
    const RowBlock<A, W> rows(in, usedKeys(keyMask, s.Tk), b, h, task % blocks);
    Scratch<A> scratch(C * W + s.Tk * W + 2 * s.Tk);
    A* packed = scratch.take(C * W);
    A* tiles = scratch.take(s.Tk * W);
    double* row = reinterpret_cast<double*>(scratch.take(2 * s.Tk));
    packTransposed<A, W>(in.q + in.rowOffset(b, h, rows.first), in.stride(), rows.count, C,
                         A(kLog2E / std::sqrt(double(C))), packed);
    for (int64_t J = rows.firstTile(); J <= rows.lastTile(); ++J) {
      const int64_t keys = rows.keysIn(J), key = J * kKeyTile;
      dotTile<A, W>(keys, C, in.k + in.keyOffset(b, h, key), in.stride(), packed, tiles + key * W);
    }
    for (int64_t r = 0; r < rows.count; ++r) {
      const int64_t start = static_cast<int64_t>(rows.start[r]), limit = static_cast<int64_t>(rows.limit[r]);
      for (int64_t j = start; j <= limit; ++j) row[j] = tiles[j * W + r];
      if (args.kind == AttentionKind::StickBreaking)
        stickBreakingRow(keyMask, start, limit, row);
      else
        softmaxRow(keyMask, start, limit, row);
      const int64_t i = (rows.first + r) / s.K, group = (rows.first + r) % s.K;
      A* out = args.weights.as<A>() + (((b * s.K + group) * s.H + h) * s.Tq + i) * s.Tk;
      for (int64_t j = 0; j < s.Tk; ++j) out[j] = j >= start && j <= limit ? A(row[j]) : A(0);
    }
  });
}

// How many keys count when the first query stands at args.position.
int64_t lengthAt(const AttentionArgs& args) {
  const int64_t position = *args.position.as<int32_t>(), length = position + args.shape.Tq;
  if (position < 0 || length > args.shape.Tk)
    throw Error(ErrorKind::Value, "position is " + std::to_string(position) + ", expected 0 to " +
                                      std::to_string(args.shape.Tk - args.shape.Tq));
  return length;
}

}  // namespace

void CpuBackend::attention(const AttentionArgs& given) {
  AttentionArgs args = given;
  if (args.position) args.shape.Tk = lengthAt(args);
  if (args.kind == AttentionKind::StickBreaking)
    stickBreaking(args);
  else
    softmaxAttention(args);
}

void CpuBackend::attentionBackward(const AttentionBackwardArgs& args) {
  if (args.kind == AttentionKind::StickBreaking)
    stickBreakingBackward(args);
  else
    softmaxAttentionBackward(args);
}

int64_t CpuBackend::attentionWorkspace(const AttentionShape& shape, DType dtype) const {
  const int64_t part = dtype == DType::f64 ? gradientPart<double>(shape) : gradientPart<float>(shape);
  return shape.B * shape.H * rowGroups(shape) * 2 * part;
}

void CpuBackend::attentionWeights(const AttentionWeightsArgs& args) {
  dispatchFloat(args.q.dtype, [&]<typename T>() { weightRows<T>(args); });
}

}  // namespace MF_CPU_NAMESPACE
