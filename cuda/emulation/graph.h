#pragma once
#include <functional>

namespace mf::cuda::emulation {

// Work in the order of the stream: done at once, or kept for the graph that is being captured on this thread.
void submit(std::function<void()> work);

}  // namespace mf::cuda::emulation
