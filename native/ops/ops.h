#pragma once
// The signature of every op, as JavaScript calls it. Each checks its arguments, allocates its results and
// enqueues; none waits. Shapes: core/backend.h.
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "ops/call.h"

namespace mf::ops {

// --- tensor.cc: memory, no kernels
Tensor empty(Context& cx, DType dtype, const Shape& shape, Device device);
Tensor reshape(Context& cx, const Tensor& x, const Shape& shape);  // shares memory
Tensor narrow(Context& cx, const Tensor& x, int64_t start,
              int64_t length);  // along dimension 0; shares memory

// --- elementwise.cc
Tensor cast(Context& cx, const Tensor& x, DType dtype);
void copyInto(Context& cx, const Tensor& x, const Tensor& y);  // y = x, converted to y's dtype; same shape
void fill(Context& cx, const Tensor& x, double value);
Tensor unary(Context& cx, UnaryKind kind, const Tensor& x);
Tensor unaryBackward(Context& cx, UnaryKind kind, const Tensor& x, const Tensor& dy);
Tensor binary(Context& cx, BinaryKind kind, const Tensor& a, const Tensor& b);  // b: trailing dimensions of a
Tensor affine(Context& cx, const Tensor& x, double alpha, double beta);         // alpha * x + beta
void accumulate(Context& cx, const Tensor& x, const Tensor& y, double alpha);   // y += alpha * x
void increment(Context& cx, const Tensor& x);                                   // x += 1, i32

// --- random.cc
void random(Context& cx, RandomKind kind, const Tensor& x, double a, double b, RandomKey key);  // fills x
Tensor dropout(Context& cx, const Tensor& x, double p, RandomKey key);

// --- reduce.cc: over the dimensions [first, last)
Tensor sum(Context& cx, const Tensor& x, int64_t first, int64_t last);
Tensor expand(Context& cx, const Tensor& x, const Shape& shape, int64_t first,
              int64_t last);                                       // sum's inverse shape
Tensor mulRows(Context& cx, const Tensor& x, const Tensor& s);     // x [.., D], s [..] acc
void scaleInPlace(Context& cx, const Tensor& x, const Tensor& s);  // x *= s, one number in acc
Tensor rowDot(Context& cx, const Tensor& a, const Tensor& b);      // [.., D] twice -> [..] acc

// --- embedding.cc
Tensor embedding(Context& cx, const Tensor& weight, const Tensor& ids);  // [V, D], [..] -> [.., D]
Tensor embeddingBackward(Context& cx, const Tensor& dy, const Tensor& ids, int64_t V);  // -> dweight [V, D]

// --- norm.cc: x [.., D] -> out, mean (LayerNorm), rstd; backward -> dx, dweight, dbias
std::tuple<Tensor, std::optional<Tensor>, Tensor> norm(Context& cx, NormKind kind, const Tensor& x,
                                                       const Tensor& weight,
                                                       const std::optional<Tensor>& bias, double eps);
std::tuple<Tensor, Tensor, std::optional<Tensor>> normBackward(Context& cx, NormKind kind, const Tensor& x,
                                                               const Tensor& weight,
                                                               const std::optional<Tensor>& mean,
                                                               const Tensor& rstd, const Tensor& dy,
                                                               bool hasBias);

// --- l2_normalize.cc: x [.., D] -> out, norm [..]
std::tuple<Tensor, Tensor> l2Normalize(Context& cx, const Tensor& x);
Tensor l2NormalizeBackward(Context& cx, const Tensor& x, const Tensor& norm, const Tensor& dy);

// --- softmax.cc: over the last dimension
Tensor softmax(Context& cx, const Tensor& x, bool log);
Tensor softmaxBackward(Context& cx, const Tensor& y, const Tensor& dy, bool log);

// --- cross_entropy.cc: logits [.., V] acc, labels [..] -> loss [], lse [..], count []
std::tuple<Tensor, Tensor, Tensor> crossEntropy(Context& cx, const Tensor& logits, const Tensor& labels);
Tensor crossEntropyBackward(Context& cx, const Tensor& logits, const Tensor& labels, const Tensor& lse,
                            const Tensor& count, const Tensor& dloss);

// --- linear_cross_entropy.cc: x [.., D], weight [V, D], labels [..] -> loss [], dx and dweight where wanted
std::tuple<Tensor, std::optional<Tensor>, std::optional<Tensor>> linearCrossEntropy(
    Context& cx, const Tensor& x, const Tensor& weight, const Tensor& labels, bool wantDx, bool wantDweight);

// --- router.cc
// logits [N, E] f64 or f32 -> probs [N, E], gates [N, K]; i32: experts [N, K], order [R], inverse [R],
// offsets [E + 1]
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> route(Context& cx, const Tensor& logits,
                                                                 int64_t topK, int64_t sample,
                                                                 const RandomKey& key);
// experts [N, K] -> order [R], inverse [R], offsets [E + 1], all i32
std::tuple<Tensor, Tensor, Tensor> routePlan(Context& cx, const Tensor& experts, int64_t numExperts);
Tensor gatherGates(Context& cx, const Tensor& probs, const Tensor& experts);  // -> [N, K]
Tensor gatherGatesBackward(Context& cx, const Tensor& dgates, const Tensor& experts,
                           int64_t numExperts);  // -> dprobs [N, E]

// --- router_loss.cc
// -> losses [4], stats [3, E]
std::tuple<Tensor, Tensor> routerLoss(Context& cx, const Tensor& logits, const Tensor& probs,
                                      const Tensor& gates, const Tensor& experts,
                                      const std::optional<Tensor>& mask);
Tensor routerLossBackward(Context& cx, const Tensor& logits, const Tensor& probs,
                          const std::optional<Tensor>& mask, const Tensor& stats,
                          const Tensor& dout);  // -> dlogits [N, E]

// --- combine.cc
// y [N * K, D], gates [N, K] in acc -> [N, D]
Tensor combine(Context& cx, const Tensor& y, const std::optional<Tensor>& gates, int64_t topK);
// -> dy and dgates, each only if wanted
std::tuple<std::optional<Tensor>, std::optional<Tensor>> combineBackward(Context& cx, const Tensor& dout,
                                                                         const Tensor& y,
                                                                         const std::optional<Tensor>& gates,
                                                                         int64_t topK, bool wantY,
                                                                         bool wantGates);

// --- attention.cc: q [B, Tq, K, H, C], k and v [B, capacity, H, C] of which keyLength rows count
// (with position i32 [1]: as many of them as position + Tq) -> out, and with keepState rowState and live [B,
// Tq, K, H] for backward (live: stick-breaking)
std::tuple<Tensor, std::optional<Tensor>, std::optional<Tensor>> attention(
    Context& cx, AttentionKind kind, const Tensor& q, const Tensor& k, const Tensor& v,
    const std::optional<Tensor>& keyMask, const std::optional<Tensor>& documentStart, int64_t keyLength,
    bool attendCurrent, bool remainder, bool keepState, const std::optional<Tensor>& position);
// -> dq, dk, dv; out: softmax, live: stick-breaking
std::tuple<Tensor, Tensor, Tensor> attentionBackward(Context& cx, AttentionKind kind, const Tensor& q,
                                                     const Tensor& k, const Tensor& v,
                                                     const std::optional<Tensor>& keyMask,
                                                     const std::optional<Tensor>& documentStart,
                                                     int64_t keyLength, bool attendCurrent, bool remainder,
                                                     const std::optional<Tensor>& out, const Tensor& rowState,
                                                     const std::optional<Tensor>& live, const Tensor& dout);
Tensor attentionWeights(Context& cx, AttentionKind kind, const Tensor& q, const Tensor& k,
                        const std::optional<Tensor>& keyMask, const std::optional<Tensor>& documentStart,
                        int64_t keyLength, bool attendCurrent);  // -> [B, K, H, Tq, keyLength]

// --- rotary.cc: x [B, T, H, C], positions [B, T] i32
Tensor rotary(Context& cx, const Tensor& x, const Tensor& positions, int64_t rotaryDim, double base,
              bool inverse);

// --- kv_cache.cc: x [B, T, ..] into rows start .. start + T of cache [B, capacity, ..], in place; position
// i32 [1] is added to start
void cacheAppend(Context& cx, const Tensor& x, const Tensor& cache, int64_t start,
                 const std::optional<Tensor>& position);

// --- grad_norm.cc
std::tuple<Tensor, Tensor> gradNorm(Context& cx, const std::vector<Tensor>& tensors);  // -> norm, finite
void clipGradients(Context& cx, const std::vector<Tensor>& tensors, const Tensor& norm, double maxNorm);

// --- adamw.cc
// In place on parameters, m, v, master (null unless the parameter is bf16) and step.
void adamW(Context& cx, const std::vector<Tensor>& parameters, const std::vector<Tensor>& gradients,
           const std::vector<Tensor>& m, const std::vector<Tensor>& v,
           const std::vector<std::optional<Tensor>>& master, const std::vector<Tensor>& step,
           const std::optional<Tensor>& finite, double lr, double beta1, double beta2, double eps,
           double weightDecay);

// --- sample.cc
// logits [B, V], history [B, S] -> [B] i32; step i32 [1] is added to the key's stream
Tensor sampleToken(Context& cx, const Tensor& logits, const std::optional<Tensor>& history,
                   double temperature, int64_t topK, double topP, double repetitionPenalty,
                   const RandomKey& key, const std::optional<Tensor>& step);

// --- grouped_gemm.cc
// x [.., in], weight [out, in], bias [out] -> y [.., out] in dtype `out` (x's, or f32 of bf16), and, where
// wanted, what it was before the activation.
std::tuple<Tensor, std::optional<Tensor>> linear(Context& cx, const Tensor& x, const Tensor& weight,
                                                 const std::optional<Tensor>& bias,
                                                 std::optional<UnaryKind> activation, bool wantPreActivation,
                                                 DType out);
// As the dense product x w, with w [in, out] or its transpose: dx of linear.
Tensor linearInputGrad(Context& cx, const Tensor& dy, const Tensor& weight);
Tensor linearWeightGrad(Context& cx, const Tensor& x, const Tensor& dy);  // -> [out, in]
// x by xRows, w [E, in, out] (or [E, out, in] with transposeW) -> [R, out] by outRows. With an activation:
// applied, and the value before it where wanted; with preActivation: times the activation's derivative there.
std::tuple<Tensor, std::optional<Tensor>> groupedGemm(Context& cx, const Tensor& x, const Tensor& w,
                                                      const Tensor& order, const Tensor& offsets,
                                                      int64_t topK, RowMap xRows, RowMap outRows,
                                                      bool transposeW, std::optional<UnaryKind> activation,
                                                      bool wantPreActivation,
                                                      const std::optional<Tensor>& preActivation);
// -> [E, in, out]
Tensor groupedGemmWeightGrad(Context& cx, const Tensor& x, const Tensor& dy, const Tensor& order,
                             const Tensor& offsets, int64_t topK, RowMap xRows, RowMap dyRows);

// --- quantize.cc: w [.., in, out] ([.., out, in] with transposeW) -> values [.., out, in] i8, scales [..,
// out, in / groupSize] f32; x times them, dense without order and offsets
std::tuple<Tensor, Tensor> quantize(Context& cx, const Tensor& w, int64_t groupSize, bool transposeW);
Tensor quantizedGemm(Context& cx, const Tensor& x, const Tensor& values, const Tensor& scales,
                     const std::optional<Tensor>& order, const std::optional<Tensor>& offsets, int64_t topK,
                     RowMap xRows, RowMap outRows, std::optional<UnaryKind> activation, DType outputDType);

// --- tokens.cc: ids and labels [B, T]
Tensor shiftLabels(Context& cx, const Tensor& labels);              // -> [B, T] i32
Tensor lastTokenRows(Context& cx, const Tensor& ids, int64_t pad);  // -> [B] i32; pad < 0: none

}  // namespace mf::ops
