// The table of ops: name in JavaScript, function, names of the arguments (for messages).
#include "ops/ops.h"

#include "napi/convert.h"
#include "napi/registry.h"

namespace mf::napi {

#define MF_OP(function, ...)                              \
  {                                                       \
    static const OpEntry entry{#function, {__VA_ARGS__}}; \
    define<&ops::function>(env, exports, entry);          \
  }

void registerOps(napi_env env, napi_value exports) {
  MF_OP(empty, "dtype", "shape", "device")
  MF_OP(reshape, "x", "shape")
  MF_OP(narrow, "x", "start", "length")

  MF_OP(shiftLabels, "labels")
  MF_OP(lastTokenRows, "ids", "pad")

  MF_OP(route, "probs", "k", "sample", "key")
  MF_OP(routePlan, "experts", "numExperts")
  MF_OP(gatherGates, "probs", "experts")
  MF_OP(gatherGatesBackward, "dgates", "experts", "numExperts")
  MF_OP(routerLoss, "logits", "probs", "gates", "experts", "mask")
  MF_OP(routerLossBackward, "logits", "probs", "mask", "stats", "dout")
  MF_OP(combine, "y", "gates", "topK")
  MF_OP(combineBackward, "dout", "y", "gates", "topK", "wantY", "wantGates")

  MF_OP(gradNorm, "tensors")
  MF_OP(clipGradients, "tensors", "norm", "maxNorm")
  MF_OP(adamW, "parameters", "gradients", "m", "v", "master", "step", "finite", "lr", "beta1", "beta2", "eps",
        "weightDecay")
  MF_OP(sampleToken, "logits", "history", "temperature", "topK", "topP", "repetitionPenalty", "key")
}

#undef MF_OP

}  // namespace mf::napi
