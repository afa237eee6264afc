// A captured graph runs nothing while it is captured, and everything in order at each launch.
#include <vector>

#include "cuda/device.h"
#include "run.h"

namespace {

using namespace mf;
using namespace mf::cuda;

MF_KERNEL void addKernel(int* x, int value) {
  x[threadId()] += value;
}

NATIVE_TEST(graphsRunWhatWasCaptured) {
  std::vector<int> x(32, 7);
  beginCapture(nullptr);
  fillBytes(nullptr, x.data(), 0, x.size() * sizeof(int));
  launch(addKernel, {1}, 32, 0, nullptr, x.data(), 2);
  launch(addKernel, {1}, 32, 0, nullptr, x.data(), 3);
  const std::shared_ptr<Graph> graph = endCapture(nullptr);
  CHECK(x == std::vector<int>(32, 7));
  for (int run = 0; run < 2; ++run) {
    graph->launch(nullptr);
    CHECK(x == std::vector<int>(32, 5));
    x.assign(32, 100);
  }
  launch(addKernel, {1}, 32, 0, nullptr, x.data(), 1);
  CHECK(x == std::vector<int>(32, 101));
}

}  // namespace
