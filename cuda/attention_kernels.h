#pragma once
// Attention beside the kernels of attention.cu: each returns once its launches are in the stream.
#include <functional>

#include "core/backend.h"
#include "cuda/device.h"
#include "cuda/fault.h"

namespace mf::cuda {

using ScratchOf = std::function<void*(size_t bytes)>;

// Few query rows without gradients: the keys are split over blocks.
bool isDecoding(const AttentionArgs& args);
void decodeAttention(StreamHandle stream, const AttentionArgs& args, Fault* fault, const ScratchOf& scratch);

// Heads too wide for registers: the weights go through scratch memory.
void wideAttention(StreamHandle stream, const AttentionArgs& args, Fault* fault, const ScratchOf& scratch);
void wideAttentionBackward(StreamHandle stream, const AttentionBackwardArgs& args, const ScratchOf& scratch);

}  // namespace mf::cuda
