// A captured graph runs nothing while it is captured, and everything in order at each launch; and how the
// backend captures.
#include <functional>
#include <vector>

#include "cuda/device.h"
#include "cuda/select.h"
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

NATIVE_TEST(capturesRefuseWhatTheRuntimeRefuses) {
  int value = 0;
  void* block = deviceMemory().allocate(64);
  const std::pair<const char*, std::function<void()>> refused[] = {
      {"allocating memory while a graph is captured", [] { deviceMemory().allocate(64); }},
      {"freeing memory", [&] { deviceMemory().release(block, 64); }},
      {"waiting for the stream", [] { waitFor(nullptr); }},
      {"copying to the host", [&] { copyToHost(nullptr, &value, block, sizeof value); }},
      {"copying from the host", [&] { copyToDevice(nullptr, block, &value, sizeof value); }},
      {"another capture", [] { beginCapture(nullptr); }}};
  for (const auto& [message, call] : refused) {
    beginCapture(nullptr);
    CHECK(contains(complaint(call), message));
    CHECK(contains(complaint([] { endCapture(nullptr); }), "the capture of a graph was lost"));
    CHECK(complaint(call).empty() || contains(message, "capture"));
    if (contains(message, "freeing")) block = deviceMemory().allocate(64);
    if (contains(message, "another")) endCapture(nullptr);
  }
  deviceMemory().release(block, 64);
}

// Sums columns, in chunks with scratch.
struct ColumnSums {
  explicit ColumnSums(int64_t rows)
      : args{{nullptr, DType::f32, {rows, 2}}, {nullptr, DType::f32, {2}}, 1, rows, 2},
        in(static_cast<size_t>(2 * rows), 1),
        out(2, -1) {
    args.in.data = in.data();
    args.out.data = out.data();
  }
  SumArgs args;
  std::vector<float> in, out;
};

NATIVE_TEST(theBackendCapturesAProgramOnceAndAnewWhenScratchHasMoved) {
  const std::unique_ptr<Backend> backend = createBackend();
  CHECK(backend->canReplay());
  ColumnSums small(1000), large(1000 * 1000);
  std::shared_ptr<void> captured;
  int runs = 0;
  const auto replay = [&] {
    small.in.assign(small.in.size(), 3);
    small.out = {-1, -1};
    backend->replay(captured, [&] {
      ++runs;
      backend->sum(small.args);
      CHECK(runs == 1 || small.out[0] == -1);  // nothing runs while it is captured
    });
    CHECK(small.out == std::vector<float>({3000, 3000}));
  };
  const int expectedRuns[] = {1, 2, 2, 2};
  for (const int expected : expectedRuns) {
    replay();
    CHECK(runs == expected);
  }
  backend->sum(large.args);
  CHECK(large.out[1] == 1000 * 1000);
  replay();
  CHECK(runs == 3);
  replay();
  CHECK(runs == 3);
}

NATIVE_TEST(aCaptureThatIsLostIsAnErrorAndTheNextRunCapturesAnew) {
  const std::unique_ptr<Backend> backend = createBackend();
  ColumnSums sums(1000);
  std::shared_ptr<void> captured;
  bool waits = false;
  const auto replay = [&] {
    backend->replay(captured, [&] {
      backend->sum(sums.args);
      if (waits) complaint([&] { backend->synchronize(); });
    });
  };
  replay();
  waits = true;
  CHECK(contains(complaint(replay), "the capture of a graph was lost"));
  waits = false;
  sums.out = {-1, -1};
  replay();
  CHECK(sums.out == std::vector<float>({1000, 1000}));
}

}  // namespace
