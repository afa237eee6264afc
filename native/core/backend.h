#pragma once
// The interface every device implements: one virtual method and one argument struct per op. Arguments were
// checked by native/ops; outputs and workspaces are allocated. Memory is contiguous and row-major. Shapes are
// in the comments: B sequences, T positions, N = B*T tokens, D width, E experts, K experts per token, R = N*K
// routed rows, H heads, C head width, F expert hidden width, V vocabulary. "acc" is f32 (f64 in f64 models).
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/allocator.h"
#include "core/error.h"
#include "core/view.h"

namespace mf {

struct CopyArgs {  // converts between dtypes
  View in, out;
};
struct FillArgs {
  View out;
  double value;
};

// Counter-based random numbers (Philox 4x32-10): a value depends on (seed, stream, index) alone.
struct RandomKey {
  uint64_t seed;
  uint64_t stream;
};
enum class RandomKind : int { Uniform, Normal };
struct RandomArgs {
  View out;
  RandomKind kind;
  double a, b;  // uniform: [a, b); normal: mean a, standard deviation b
  RandomKey key;
};

enum class UnaryKind : int {
  Gelu,
  GeluNew,
  Silu,
  Relu,
  Sigmoid,
  Tanh,
  Exp,
  Log,
  Sqrt,
  Square,
  Neg,
  Abs,
  Softplus
};
struct UnaryArgs {
  UnaryKind kind;
  View x, out;
};
struct UnaryBackwardArgs {  // dx = dy * f'(x)
  UnaryKind kind;
  View x, dy, dx;
};
enum class BinaryKind : int { Add, Sub, Mul, Div };
struct BinaryArgs {  // b is repeated along a's leading dimensions: b.numel() divides a.numel()
  BinaryKind kind;
  View a, b, out;
};
struct AffineArgs {  // out = alpha * x + beta
  View x, out;
  double alpha, beta;
};
struct IncrementArgs {  // x i32 += 1, in place
  View x;
};
struct AccumulateArgs {  // y += alpha * x, in place; x and y may differ in dtype
  View x, y;
  double alpha;
};
struct SumArgs {  // in [outer, inner, tail] -> out [outer, tail], acc inside
  View in, out;
  int64_t outer, inner, tail;
};
struct ExpandArgs {  // in [outer, tail] -> out [outer, inner, tail]: out[o, i, t] = in[o, t]
  View in, out;
  int64_t outer, inner, tail;
};
struct MulRowsArgs {  // out[r, :] = x[r, :] * s[r]; s is acc
  View x, s, out;
};
struct RowDotArgs {  // out[r] = sum_c a[r, c] b[r, c]; out is acc
  View a, b, out;
};

struct ShiftLabelsArgs {  // labels [B, T] i32 or i64 -> out [B, T] i32: out[b, t] = labels[b, t + 1], the
                          // last is -100
  View labels, out;
};
struct LastTokenRowsArgs {
  // ids [B, T] i32 or i64 -> rows [B] i32: b * T + count(ids[b] != pad) - 1; the row's last position without
  // a pad token (pad < 0) or without any other token.
  View ids, rows;
  int64_t pad;
};

struct EmbeddingArgs {  // weight [V, D], ids [N] i32 or i64 -> out [N, D]; an id outside [0, V) is an error
  View weight, ids, out;
};
struct EmbeddingBackwardArgs {  // dweight [V, D] = sum over the tokens of each id in rising order; zeros
                                // elsewhere
  View dy, ids, dweight;
};

enum class NormKind : int { LayerNorm, RmsNorm };
struct NormArgs {  // x [N, D] -> out [N, D], mean [N] (LayerNorm) and rstd [N] in acc; bias may be absent
  NormKind kind;
  View x, weight, bias, out, mean, rstd;
  double eps;
};
struct NormBackwardArgs {  // partial: workspace in acc [groups, 2, D], reduced in fixed order
  NormKind kind;
  View x, weight, mean, rstd, dy, dx, dweight, dbias, partial;
};
struct L2NormalizeArgs {  // out = x / max(||x||, 1e-12) per row, norm [N] in acc
  View x, out, norm;
};
struct L2NormalizeBackwardArgs {
  View x, norm, dy, dx;
};

struct SoftmaxArgs {  // over the last dimension; log: log-softmax
  View x, out;
  bool log;
};
struct SoftmaxBackwardArgs {
  View y, dy, dx;
  bool log;
};

struct CrossEntropyArgs {
  // logits [N, V] acc, labels [N] i32 or i64 with -100 ignored. loss [1] acc is the mean over the counted
  // labels (0 without any); lse [N] acc; count [1] acc.
  View logits, labels, loss, lse, count;
};
struct CrossEntropyBackwardArgs {  // dlogits = (softmax - onehot) * dloss / count
  View logits, labels, lse, count, dloss, dlogits;
};
struct LinearCrossEntropyArgs {
  // Fused LM head: x [N, D], weight [V, D], labels [N] -> loss, count [1] acc; never holds [N, V]. dx and
  // dweight, where given, receive the gradients for dloss = 1. Workspaces, for `chunk` rows at a time: logits
  // [chunk, V] and losses [chunk] in acc; dlogits [chunk, V] in x's dtype (absent without gradients; f32 and
  // f64: the memory of logits); dweightSum [V, D] acc, the sum over chunks, for a bf16 dweight with more than
  // one chunk.
  View x, weight, labels, loss, count, dx, dweight, logits, losses, dlogits, dweightSum;
};

struct DropoutArgs {  // out = keep ? x / (1 - p) : 0; the mask is a function of the key and the index
  View x, out;
  double p;
  RandomKey key;
};

struct RoutePlanArgs {
  // experts [N, K] i32 -> offsets [E + 1] i32, order [R] i32 (sorted row -> slot row n*K + k, stable),
  // inverse [R] i32.
  View experts, offsets, order, inverse;
};
struct RouteArgs {
  // logits [N, E] acc -> probs [N, E] acc, their softmax; plan.experts [N, K] i32 (falling probability, lower
  // index first on ties), gates [N, K] acc, the rest of the plan. The last `sample` of K are drawn without
  // replacement from the rest in proportion to p + 1e-6.
  View logits, probs, gates;
  RoutePlanArgs plan;
  int64_t sample;
  RandomKey key;
};
struct GatherGatesArgs {  // gates [N, K] = probs[n, experts[n, k]]
  View probs, experts, gates;
};
struct GatherGatesBackwardArgs {  // dprobs [N, E] = scatter of dgates
  View dgates, experts, dprobs;
};
struct RouterLossArgs {
  // logits, probs [N, E] acc, gates [N, K] acc, experts [N, K] i32, mask [N] i32 or absent (0 leaves a token
  // out). out [4] acc: mi, switch without its z term, z (mean squared logsumexp), concentration (marginal
  // entropy); all 0 without tokens. stats acc [3, E], over the tokens that count: sum of p, number of choices
  // with gate > 0, sum of gates.
  View logits, probs, gates, experts, mask, out, stats;
};
struct RouterLossBackwardArgs {  // dout [4] -> dlogits [N, E]
  View logits, probs, mask, stats, dout, dlogits;
};

// A grouped GEMM: row s of the sorted order belongs to the expert e with offsets[e] <= s < offsets[e + 1].
// Sorted: memory row s. Slot: memory row order[s] = n*K + k. Token: memory row order[s] / K (reading only).
enum class RowMap : int { Sorted, Slot, Token };
enum class Epilogue : int { None, Activation, ActivationGrad };
struct GroupedGemmArgs {
  // x [.., in], w [E, in, out] (or [E, out, in] with transposeW) -> out [R, out], in x's dtype or f32 of
  // bf16. Dense: E = 1, no order, no offsets.
  View x, w, out, order, offsets;
  RowMap xRows, outRows;
  int64_t topK;
  bool transposeW;
  View bias;  // [out], dense only, or absent
  Epilogue epilogue;
  UnaryKind activation;
  View preActivation;  // [R, out] in out's rows: written by Activation when present, read by ActivationGrad
};
struct GroupedGemmWeightGradArgs {
  // dw [E, in, out] = sum over an expert's rows of x_row^T dy_row, zeros for experts without rows;
  // transposeOut: dw is [E, out, in].
  View x, dy, dw, order, offsets;
  RowMap xRows, dyRows;
  int64_t topK;
  bool transposeOut;
};
struct QuantizeArgs {
  // w [.., in, out] ([.., out, in] with transposeW) -> values [.., out, in] i8 and scales [.., out, in /
  // groupSize] f32: w = value * scale, value = round(w / scale), scale = the group's largest magnitude / 127
  // (NaN in a group with a number that is not finite).
  View w, values, scales;
  int64_t groupSize;
  bool transposeW;
};
struct QuantizedGemmArgs {
  // As GroupedGemmArgs with w = values * scales: x [.., in] f32 or bf16, values [E, out, in] i8 ([out, in]:
  // dense, no order, no offsets), scales [E, out, in / groupSize] f32 -> out in x's dtype, or f32 of bf16.
  // widened [out, in] in x's dtype: workspace for the weight of one expert.
  View x, values, scales, out, order, offsets, widened;
  RowMap xRows, outRows;
  int64_t topK;
  Epilogue epilogue;  // None or Activation
  UnaryKind activation;
};
struct CombineArgs {  // y [R, D] in slot rows, gates [N, K] acc or absent (1) -> out [N, D] = sum_k gate * y
  View y, gates, out;
  int64_t topK;
};
struct CombineBackwardArgs {
  // dy [R, D] = gate * dout[token]; dgates [N, K] = dout[token] . y. Either may be absent; y is read for
  // dgates only.
  View dout, y, gates, dy, dgates;
  int64_t topK;
};

enum class AttentionKind : int { StickBreaking, Softmax };
struct AttentionShape {
  int64_t B, Tq, Tk, K, H, C;  // K query groups share the keys of a head
  int64_t keyCapacity;  // rows per sequence in the memory of k and v (>= Tk): a cache larger than its content
};
struct AttentionArgs {
  // q [B, Tq, K, H, C], k and v [B, keyCapacity, H, C] -> out [B, Tq, K, H, C]; k and v may be one tensor.
  // Query i stands at key position i + Tk - Tq. keyMask [B, Tk] i32 or absent: 0 leaves a key out.
  // documentStart [B, Tq] i32 or absent: first key position a query may see. scale = 1 / sqrt(C).
  // attendCurrent and remainder: stick-breaking only; the remainder is what is left of the stick times the
  // token's own value (all of it in a row without keys). Kept for backward, absent when no gradient is
  // wanted: rowState [B, Tq, K, H] acc (the stick at the right edge of the leftmost live key tile; softmax:
  // log-sum-exp) and live [B, Tq, K, H] i32 (that tile; stick-breaking only).
  AttentionKind kind;
  AttentionShape shape;
  // position i32 [1] or absent: that of the first query, Tk is then position + Tq and not shape.Tk, the
  // mask's width.
  View q, k, v, keyMask, documentStart, out, rowState, live;
  bool attendCurrent, remainder;
  View position;
};
struct AttentionBackwardArgs {
  AttentionKind kind;
  AttentionShape shape;
  View q, k, v, keyMask, documentStart, out, rowState, live, dout, dq, dk, dv;
  View workspace;  // acc, private dk and dv per row group: of attentionWorkspace() elements
  bool attendCurrent, remainder;
};
struct AttentionWeightsArgs {  // weights [B, K, H, Tq, Tk] acc: the matrix itself, for inspection
  AttentionKind kind;
  AttentionShape shape;
  View q, k, keyMask, documentStart, weights;
  bool attendCurrent;
};
struct RotaryArgs {
  // x [B, T, H, C] -> out; the first `rotaryDim` channels of each head are rotated (GPT-NeoX halves) by
  // positions [B, T] i32 * base^(-2i/rotaryDim); inverse: the backward rotation.
  View x, positions, out;
  int64_t rotaryDim;
  double base;
  bool inverse;
};
struct CacheAppendArgs {
  // Copies in [B, T, W] to cache[:, start : start + T, :] of [B, capacity, W], in place. position i32 [1] or
  // absent: is added to start.
  View in, cache;
  int64_t start;
  View position;
};

// gradNorm, clip and adamW divide each tensor into blocks of this many elements, the last one shorter.
constexpr int64_t kTensorBlock = 1 << 16;
struct GradNormArgs {
  // norm [1] f32 (f64 if a tensor is): the 2-norm over all tensors; finite [1] i32: 1 when it is a finite
  // number.
  std::vector<View> tensors;
  View partial;  // workspace f64, one per block of each tensor
  View norm, finite;
};
struct ClipArgs {  // g *= min(1, maxNorm / (norm + 1e-6)), in place; nothing changes when norm is not finite
  std::vector<View> tensors;
  View norm;
  double maxNorm;
};
struct AdamWArgs {
  // One fused update over parallel lists. Gradients are in the parameter's dtype or its acc, m and v in acc;
  // master is f32 where the parameter is bf16, absent elsewhere. step [1] i32: updates done so far, raised by
  // one before it enters the bias correction. Nothing changes, step included, when finite [1] i32 is given
  // and 0.
  std::vector<View> parameters, gradients, m, v, master, step;
  View finite;
  double lr, beta1, beta2, eps, weightDecay;
};

struct SampleArgs {
  // logits [B, V] acc -> out [B] i32. history [B, S] i32 (-1 is padding) for the repetition penalty, or
  // absent. temperature 0 takes the first maximum. topK 0 and topP 1 are off. step i32 [1] or absent: is
  // added to key.stream.
  View logits, history, out;
  double temperature, topP, repetitionPenalty;
  int64_t topK;
  RandomKey key;
  View step;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;

  // The device's memory, and copies between it and the host's: in the order of the ops, done when they
  // return.
  virtual MemorySource& memory() { return systemMemory(); }
  virtual void write(void* device, const void* host, size_t bytes) {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  virtual void read(void* host, const void* device, size_t bytes) {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }
  // Waits for all ops so far; throws what they found wrong with their data and could not throw at once.
  virtual void synchronize() {}

  // Whether ops take from tensors what changes from one run of a recorded program to the next (position,
  // step).
  virtual bool canReplay() const { return false; }
  // Runs a recorded program, whose ops `run` calls in order. A device may capture what they enqueue, keep it
  // in `captured`, which lives as long as the program, and launch that from then on without calling `run`.
  // Ops run one by one, and this is not called, while an input of the program is poisoned.
  virtual void replay(std::shared_ptr<void>& captured, const std::function<void()>& run) {
    static_cast<void>(captured);
    run();
  }

  virtual void copy(const CopyArgs&) = 0;
  virtual void fill(const FillArgs&) = 0;
  virtual void random(const RandomArgs&) = 0;
  virtual void unary(const UnaryArgs&) = 0;
  virtual void unaryBackward(const UnaryBackwardArgs&) = 0;
  virtual void binary(const BinaryArgs&) = 0;
  virtual void affine(const AffineArgs&) = 0;
  virtual void increment(const IncrementArgs&) { unsupported("increment"); }
  virtual void accumulate(const AccumulateArgs&) = 0;
  virtual void sum(const SumArgs&) = 0;
  virtual void expand(const ExpandArgs&) = 0;
  virtual void mulRows(const MulRowsArgs&) = 0;
  virtual void rowDot(const RowDotArgs&) = 0;
  virtual void shiftLabels(const ShiftLabelsArgs&) = 0;
  virtual void lastTokenRows(const LastTokenRowsArgs&) = 0;
  virtual void embedding(const EmbeddingArgs&) = 0;
  virtual void embeddingBackward(const EmbeddingBackwardArgs&) = 0;
  virtual void norm(const NormArgs&) = 0;
  virtual void normBackward(const NormBackwardArgs&) = 0;
  virtual void l2Normalize(const L2NormalizeArgs&) = 0;
  virtual void l2NormalizeBackward(const L2NormalizeBackwardArgs&) = 0;
  virtual void softmax(const SoftmaxArgs&) = 0;
  virtual void softmaxBackward(const SoftmaxBackwardArgs&) = 0;
  virtual void crossEntropy(const CrossEntropyArgs&) = 0;
  virtual void crossEntropyBackward(const CrossEntropyBackwardArgs&) = 0;
  virtual void linearCrossEntropy(const LinearCrossEntropyArgs&) = 0;
  virtual void dropout(const DropoutArgs&) = 0;
  virtual void route(const RouteArgs&) = 0;
  virtual void routePlan(const RoutePlanArgs&) = 0;
  virtual void gatherGates(const GatherGatesArgs&) = 0;
  virtual void gatherGatesBackward(const GatherGatesBackwardArgs&) = 0;
  virtual void routerLoss(const RouterLossArgs&) = 0;
  virtual void routerLossBackward(const RouterLossBackwardArgs&) = 0;
  virtual void groupedGemm(const GroupedGemmArgs&) = 0;
  virtual void groupedGemmWeightGrad(const GroupedGemmWeightGradArgs&) = 0;
  virtual void quantize(const QuantizeArgs&) { unsupported("quantize"); }
  virtual void quantizedGemm(const QuantizedGemmArgs&) { unsupported("quantizedGemm"); }
  virtual void combine(const CombineArgs&) = 0;
  virtual void combineBackward(const CombineBackwardArgs&) = 0;
  virtual void attention(const AttentionArgs&) = 0;
  virtual void attentionBackward(const AttentionBackwardArgs&) = 0;
  virtual int64_t attentionWorkspace(const AttentionShape&, DType) const = 0;  // in acc elements
  virtual void attentionWeights(const AttentionWeightsArgs&) = 0;
  virtual void rotary(const RotaryArgs&) = 0;
  virtual void cacheAppend(const CacheAppendArgs&) = 0;
  virtual void gradNorm(const GradNormArgs&) = 0;
  virtual void clip(const ClipArgs&) = 0;
  virtual void adamW(const AdamWArgs&) = 0;
  virtual void sample(const SampleArgs&) = 0;

 private:
  [[noreturn]] void unsupported(const char* op) const {
    throw Error(ErrorKind::Kernel, std::string(op) + ": the device " + name() + " has no kernel for it");
  }
};

}  // namespace mf
