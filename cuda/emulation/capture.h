#pragma once
#include <cstdint>

namespace mf::cuda::emulation {

bool isCapturing();  // on this thread
// Throws while this thread captures: what the runtime refuses then. The capture is lost, as it would be.
void refuseWhileCapturing(const char* what);
int64_t submissions();  // launches and fills that this thread has made so far

}  // namespace mf::cuda::emulation
