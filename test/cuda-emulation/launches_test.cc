// How many launches an op takes: those of docs/cuda.md. Sizes are those at which a GPU would be busy in
// shape, small in number.
#include <deque>
#include <memory>
#include <vector>

#include "cuda/emulation/capture.h"
#include "cuda/select.h"
#include "run.h"

namespace {

using namespace mf;
using namespace mf::cuda;

// Tensors of zeros.
class Tensors {
 public:
  View make(DType dtype, const Shape& shape) {
    memory_.emplace_back(static_cast<size_t>(shape.numel()) + 2);
    View view;
    view.data = memory_.back().data();
    view.dtype = dtype;
    view.shape = shape;
    return view;
  }
  View f32(const Shape& shape) { return make(DType::f32, shape); }
  View bf16(const Shape& shape) { return make(DType::bf16, shape); }
  View i32(const Shape& shape) { return make(DType::i32, shape); }
  std::vector<View> many(int count, const Shape& shape) {
    std::vector<View> list;
    for (int i = 0; i < count; ++i) list.push_back(f32(shape));
    return list;
  }

 private:
  std::deque<std::vector<double>> memory_;
};

template <typename F>
int64_t launches(F f) {
  const int64_t before = emulation::submissions();
  f();
  return emulation::submissions() - before;
}

NATIVE_TEST(rowsTakeOneLaunchAndTheirGradientsFew) {
  const std::unique_ptr<Backend> backend = createBackend();
  Tensors t;
  const View x = t.bf16({3, 64}), y = t.bf16({3, 64}), dy = t.bf16({3, 64}), dx = t.bf16({3, 64});
  const View weight = t.bf16({64}), bias = t.bf16({64}), mean = t.f32({3}), rstd = t.f32({3});
  CHECK(launches([&] { backend->norm({NormKind::LayerNorm, x, weight, bias, y, mean, rstd, 1e-5}); }) == 1);
  CHECK(launches([&] {
          backend->normBackward({NormKind::LayerNorm, x, weight, mean, rstd, dy, dx, t.bf16({64}),
                                 t.bf16({64}), t.f32({2, 2, 64})});
        }) == 3);
  CHECK(launches([&] { backend->softmax({x, y, false}); }) == 1);
  CHECK(launches([&] { backend->softmaxBackward({y, dy, dx, false}); }) == 1);
  CHECK(launches([&] { backend->dropout({x, y, 0.1, {1, 2}}); }) == 1);
}

NATIVE_TEST(choosingExpertsAndSortingRowsTakesTwoLaunchesAtMost) {
  const std::unique_ptr<Backend> backend = createBackend();
  Tensors t;
  const auto router = [&](int64_t N) {
    const RoutePlanArgs plan{t.i32({N, 2}), t.i32({9}), t.i32({2 * N}), t.i32({2 * N})};
    return launches([&] { backend->route({t.f32({N, 8}), t.f32({N, 8}), t.f32({N, 2}), plan, 0, {1, 2}}); });
  };
  CHECK(router(3) == 1);
  CHECK(router(128) == 1);
  CHECK(router(129) == 2);
  CHECK(router(9000) == 2);
  CHECK(launches([&] { backend->routePlan({t.i32({3, 2}), t.i32({9}), t.i32({6}), t.i32({6})}); }) == 1);
  const View logits = t.f32({3, 8}), probs = t.f32({3, 8}), stats = t.f32({3, 8}), out = t.f32({4});
  CHECK(launches([&] {
          backend->routerLoss({logits, probs, t.f32({3, 2}), t.i32({3, 2}), {}, out, stats});
        }) == 2);
  CHECK(launches([&] { backend->routerLossBackward({logits, probs, {}, stats, out, t.f32({3, 8})}); }) == 2);
  const View y = t.bf16({6, 16}), gates = t.f32({3, 2}), sum = t.bf16({3, 16});
  CHECK(launches([&] { backend->combine({y, gates, sum, 2}); }) == 1);
  CHECK(launches([&] { backend->combineBackward({sum, y, gates, t.bf16({6, 16}), t.f32({3, 2}), 2}); }) == 1);
}

NATIVE_TEST(theLossAndTheNextTokenTakeFewLaunches) {
  const std::unique_ptr<Backend> backend = createBackend();
  Tensors t;
  const View logits = t.f32({3, 40}), labels = t.i32({3}), loss = t.f32({1}), lse = t.f32({3}),
             count = t.f32({1});
  CHECK(launches([&] { backend->crossEntropy({logits, labels, loss, lse, count}); }) == 3);
  CHECK(launches([&] {
          backend->crossEntropyBackward({logits, labels, lse, count, loss, t.f32({3, 40})});
        }) == 1);
  CHECK(launches([&] { backend->sample({logits, {}, t.i32({3}), 0.8, 0.9, 1, 5, {1, 2}, {}}); }) == 1);
  CHECK(launches([&] { backend->embedding({t.bf16({40, 16}), labels, t.bf16({3, 16})}); }) == 1);
  CHECK(launches([&] { backend->embeddingBackward({t.bf16({3, 16}), labels, t.bf16({40, 16})}); }) == 3);
  CHECK(launches([&] {
          backend->embeddingBackward({t.bf16({300, 16}), t.i32({300}), t.bf16({256, 16})});
        }) == 6);
}

NATIVE_TEST(theOptimizerTakesALaunchFor64Tensors) {
  const std::unique_ptr<Backend> backend = createBackend();
  Tensors t;
  constexpr int kTensors = 130;
  const std::vector<View> w = t.many(kTensors, {5}), g = t.many(kTensors, {5}), m = t.many(kTensors, {5}),
                          v = t.many(kTensors, {5});
  std::vector<View> step;
  for (int i = 0; i < kTensors; ++i) step.push_back(t.i32({1}));
  const View norm = t.f32({1}), finite = t.i32({1});
  CHECK(launches([&] { backend->gradNorm({g, t.make(DType::f64, {kTensors}), norm, finite}); }) == 3 + 1);
  CHECK(launches([&] { backend->clip({g, norm, 1}); }) == 3);
  CHECK(launches([&] {
          backend->adamW({w, g, m, v, std::vector<View>(kTensors), step, finite, 1e-3, 0.9, 0.95, 1e-8, 0.1});
        }) == 3 + 3);
}

NATIVE_TEST(decodingAttentionTakesTwoLaunches) {
  const std::unique_ptr<Backend> backend = createBackend();
  Tensors t;
  AttentionArgs args{};
  args.shape = {1, 1, 70, 2, 1, 32, 80};
  args.q = t.bf16({1, 1, 2, 1, 32});
  args.k = args.v = t.bf16({1, 80, 1, 32});
  args.out = t.bf16({1, 1, 2, 1, 32});
  args.attendCurrent = true;
  CHECK(launches([&] { backend->attention(args); }) == 2);
}

}  // namespace
