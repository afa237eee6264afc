#pragma once

namespace mf::cuda::emulation {

bool isCapturing();  // on this thread
// Throws while this thread captures: what the runtime refuses then. The capture is lost, as it would be.
void refuseWhileCapturing(const char* what);

}  // namespace mf::cuda::emulation
