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

  MF_OP(linear, "x", "weight", "bias", "activation", "wantPreActivation", "outputDType")
  MF_OP(linearInputGrad, "dy", "weight")
  MF_OP(linearWeightGrad, "x", "dy")
  MF_OP(groupedGemm, "x", "w", "order", "offsets", "topK", "xRows", "outRows", "transposeW", "activation",
        "wantPreActivation", "preActivation")
  MF_OP(groupedGemmWeightGrad, "x", "dy", "order", "offsets", "topK", "xRows", "dyRows")

  MF_OP(quantize, "w", "groupSize", "transposeW")
  MF_OP(quantizedGemm, "x", "values", "scales", "order", "offsets", "topK", "xRows", "outRows", "activation",
        "outputDType")

  MF_OP(shiftLabels, "labels")
  MF_OP(lastTokenRows, "ids", "pad")

  MF_OP(cast, "x", "dtype")
  MF_OP(copyInto, "x", "y")
  MF_OP(fill, "x", "value")
  MF_OP(unary, "kind", "x")
  MF_OP(unaryBackward, "kind", "x", "dy")
  MF_OP(binary, "kind", "a", "b")
  MF_OP(affine, "x", "alpha", "beta")
  MF_OP(accumulate, "x", "y", "alpha")
  MF_OP(increment, "x")
  MF_OP(random, "kind", "x", "a", "b", "key")
  MF_OP(dropout, "x", "p", "key")
  MF_OP(sum, "x", "first", "last")
  MF_OP(expand, "x", "shape", "first", "last")
  MF_OP(mulRows, "x", "s")
  MF_OP(scaleInPlace, "x", "s")
  MF_OP(rowDot, "a", "b")
  MF_OP(embedding, "weight", "ids")
  MF_OP(embeddingBackward, "dy", "ids", "V")
  MF_OP(norm, "kind", "x", "weight", "bias", "eps")
  MF_OP(normBackward, "kind", "x", "weight", "mean", "rstd", "dy", "hasBias")
  MF_OP(l2Normalize, "x")
  MF_OP(l2NormalizeBackward, "x", "norm", "dy")
  MF_OP(softmax, "x", "log")
  MF_OP(softmaxBackward, "y", "dy", "log")
  MF_OP(crossEntropy, "logits", "labels")
  MF_OP(crossEntropyBackward, "logits", "labels", "lse", "count", "dloss")
  MF_OP(linearCrossEntropy, "x", "weight", "labels", "wantDx", "wantDweight")

  MF_OP(route, "logits", "k", "sample", "key")
  MF_OP(routePlan, "experts", "numExperts")
  MF_OP(gatherGates, "probs", "experts")
  MF_OP(gatherGatesBackward, "dgates", "experts", "numExperts")
  MF_OP(routerLoss, "logits", "probs", "gates", "experts", "mask")
  MF_OP(routerLossBackward, "logits", "probs", "mask", "stats", "dout")
  MF_OP(combine, "y", "gates", "topK")
  MF_OP(combineBackward, "dout", "y", "gates", "topK", "wantY", "wantGates")

  MF_OP(attention, "kind", "q", "k", "v", "keyMask", "documentStart", "keyLength", "attendCurrent",
        "remainder", "keepState", "position")
  MF_OP(attentionBackward, "kind", "q", "k", "v", "keyMask", "documentStart", "keyLength", "attendCurrent",
        "remainder", "out", "rowState", "live", "dout")
  MF_OP(attentionWeights, "kind", "q", "k", "keyMask", "documentStart", "keyLength", "attendCurrent")
  MF_OP(rotary, "x", "positions", "rotaryDim", "base", "inverse")
  MF_OP(cacheAppend, "x", "cache", "start", "position")

  MF_OP(gradNorm, "tensors")
  MF_OP(clipGradients, "tensors", "norm", "maxNorm")
  MF_OP(adamW, "parameters", "gradients", "m", "v", "master", "step", "finite", "lr", "beta1", "beta2", "eps",
        "weightDecay")
  MF_OP(sampleToken, "logits", "history", "temperature", "topK", "topP", "repetitionPenalty", "key", "step")
}

#undef MF_OP

}  // namespace mf::napi
