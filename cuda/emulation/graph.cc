#include "cuda/emulation/graph.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "cuda/device.h"
#include "cuda/emulation/capture.h"

namespace mf::cuda {
namespace {

class EmulatedGraph final : public Graph {
 public:
  void add(std::function<void()> work) { nodes_.push_back(std::move(work)); }
  void launch(StreamHandle) override {
    emulation::refuseWhileCapturing("launching a graph");
    for (const auto& node : nodes_) node();
  }

 private:
  std::vector<std::function<void()>> nodes_;
};

thread_local std::shared_ptr<EmulatedGraph> capturing;
thread_local bool isLost = false;
thread_local int64_t submitted = 0;

}  // namespace

int64_t emulation::submissions() {
  return submitted;
}

void emulation::submit(std::function<void()> work) {
  ++submitted;
  if (capturing)
    capturing->add(std::move(work));
  else
    work();
}

bool emulation::isCapturing() {
  return capturing != nullptr;
}

void emulation::refuseWhileCapturing(const char* what) {
  if (!capturing) return;
  isLost = true;
  throw Error(ErrorKind::Kernel, std::string(what) + " while a graph is captured");
}

void beginCapture(StreamHandle) {
  emulation::refuseWhileCapturing("another capture");
  capturing = std::make_shared<EmulatedGraph>();
}
std::shared_ptr<Graph> endCapture(StreamHandle) {
  std::shared_ptr<Graph> graph = std::exchange(capturing, nullptr);
  if (std::exchange(isLost, false)) throw Error(ErrorKind::Kernel, "the capture of a graph was lost");
  return graph;
}

}  // namespace mf::cuda
