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

// --- router.cc
// probs [N, E] f64 or f32 -> experts [N, K] i32, gates [N, K]
std::tuple<Tensor, Tensor> route(Context& cx, const Tensor& probs, int64_t topK, int64_t sample,
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
// logits [B, V], history [B, S] -> [B] i32
Tensor sampleToken(Context& cx, const Tensor& logits, const std::optional<Tensor>& history,
                   double temperature, int64_t topK, double topP, double repetitionPenalty,
                   const RandomKey& key);

// --- tokens.cc: ids and labels [B, T]
Tensor shiftLabels(Context& cx, const Tensor& labels);              // -> [B, T] i32
Tensor lastTokenRows(Context& cx, const Tensor& ids, int64_t pad);  // -> [B] i32; pad < 0: none

}  // namespace mf::ops
