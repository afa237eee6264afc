#include "ops/ops.h"

namespace mf::ops {

void cacheAppend(Context& cx, const Tensor& x, const Tensor& cache, int64_t start,
                 const std::optional<Tensor>& position) {
  Call call(cx, "cacheAppend");
  const View from = call.in("x", x).minRank(2);
  const int64_t B = from.size(0), T = from.size(1), W = B * T == 0 ? 0 : from.numel() / (B * T);
  const View into = call.inout("cache", cache).dtype(x.dtype()).minRank(2);
  Shape expected = from.shape;
  expected.dims[1] = into.size(1);
  call.require(into.shape == expected, ErrorKind::Shape,
               "cache has shape " + toString(into.shape) + ", expected " + toString(expected) +
                   " beside x of shape " + toString(from.shape));
  call.require(x.storage() != cache.storage(), ErrorKind::Value,
               "x and cache share memory, expected two tensors");
  call.require(start >= 0 && start <= into.size(1) - T, ErrorKind::Value,
               "start is " + std::to_string(start) + ", expected at least 0 and room for " +
                   std::to_string(T) + " of the cache's " + std::to_string(into.size(1)) + " rows");
  View in = x.view(), out = cache.view();
  in.shape = {B, T, W};
  out.shape = {B, into.size(1), W};
  View positionView{};
  if (position) positionView = call.in("position", *position).dtype(DType::i32).numel(1);
  call.run(&Backend::cacheAppend, {in, out, start, positionView});
}

}  // namespace mf::ops
