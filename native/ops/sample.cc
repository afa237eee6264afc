#include <cmath>

#include "ops/ops.h"

namespace mf::ops {

Tensor sampleToken(Context& cx, const Tensor& logits, const std::optional<Tensor>& history,
                   double temperature, int64_t topK, double topP, double repetitionPenalty,
                   const RandomKey& key, const std::optional<Tensor>& step) {
  Call call(cx, "sampleToken");
  const View logitsView = call.in("logits", logits).accumulating().rank(2);
  const int64_t B = logitsView.size(0);
  call.require(B == 0 || logitsView.size(1) > 0, ErrorKind::Shape,
               "logits has shape " + toString(logits.shape()) + ", expected at least 1 token");
  View historyView{};
  if (history) {
    historyView = call.in("history", *history).dtype(DType::i32).rank(2);
    call.require(
        historyView.size(0) == B, ErrorKind::Shape,
        "history has shape " + toString(history->shape()) + ", expected " + std::to_string(B) + " rows");
  }
  call.require(std::isfinite(temperature) && temperature >= 0, ErrorKind::Value,
               "temperature is " + std::to_string(temperature) + ", expected a number of at least 0");
  call.require(topK >= 0, ErrorKind::Value,
               "topK is " + std::to_string(topK) + ", expected at least 1, or 0 for all tokens");
  call.require(topP > 0 && topP <= 1, ErrorKind::Value,
               "topP is " + std::to_string(topP) + ", expected a number in (0, 1]");
  call.require(std::isfinite(repetitionPenalty) && repetitionPenalty > 0, ErrorKind::Value,
               "repetitionPenalty is " + std::to_string(repetitionPenalty) + ", expected a number above 0");
  View stepView{};
  if (step) stepView = call.in("step", *step).dtype(DType::i32).numel(1);
  Tensor out = call.out(DType::i32, {B});
  call.run(&Backend::sample,
           {logitsView, historyView, out.view(), temperature, topP, repetitionPenalty, topK, key, stepView});
  return out;
}

}  // namespace mf::ops
