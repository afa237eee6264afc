#include "cuda/emulation/graph.h"

#include <memory>
#include <utility>
#include <vector>

#include "cuda/device.h"

namespace mf::cuda {
namespace {

class EmulatedGraph final : public Graph {
 public:
  void add(std::function<void()> work) { nodes_.push_back(std::move(work)); }
  void launch(StreamHandle) override {
    for (const auto& node : nodes_) node();
  }

 private:
  std::vector<std::function<void()>> nodes_;
};

thread_local std::shared_ptr<EmulatedGraph> capturing;

}  // namespace

void emulation::submit(std::function<void()> work) {
  if (capturing)
    capturing->add(std::move(work));
  else
    work();
}

void beginCapture(StreamHandle) {
  capturing = std::make_shared<EmulatedGraph>();
}
std::shared_ptr<Graph> endCapture(StreamHandle) {
  return std::exchange(capturing, nullptr);
}

}  // namespace mf::cuda
