#pragma once
// Kernels that write every element once, several neighbours per thread. A functor has operator()<kWidth>(i),
// which does the elements i to i + kWidth - 1, with packs at multiples of kWidth.
#include <algorithm>

#include "cuda/pack.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {

template <int kWidth, typename F>
MF_KERNEL void mapKernel(int64_t n, int64_t packs, F f) {
  const int64_t step = int64_t{gridBlocks()} * blockThreads();
  const int64_t first = int64_t{blockId()} * blockThreads() + threadId();
  for (int64_t i = first; i < packs; i += step) f.template operator()<kWidth>(i * kWidth);
  for (int64_t i = packs * kWidth + first; i < n; i += step) f.template operator()<1>(i);
}

// aligned: every tensor begins at a multiple of 16 bytes, and packs of kWidth stay within what f asks of
// them.
template <int kWidth, typename F>
void mapElements(StreamHandle stream, int64_t n, bool aligned, const F& f) {
  const int64_t packs = aligned ? n / kWidth : 0, work = packs > 0 ? ceilDiv(n, kWidth) : n;
  const int64_t blocks = ceilDiv(work, kThreads);
  const int threads = work < kThreads ? static_cast<int>(ceilDiv(work, kWarpSize)) * kWarpSize : kThreads;
  launch(mapKernel<kWidth, F>, {blocks < kMostBlocks ? blocks : kMostBlocks}, threads, 0, stream, n, packs,
         f);
}

// Elements of the widest of the types in 16 bytes.
template <typename... T>
constexpr int kMapWidth = 16 / static_cast<int>(std::max({sizeof(T)...}));

// out = f(x)
template <typename X, typename Out, typename F>
struct Map1 {
  const X* x;
  Out* out;
  F f;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    const auto from = loadPack<kWidth>(x + i);
    Pack<Out, kWidth> to;
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) to.elements[e] = f(from.elements[e]);
    storeVector(out + i, to);
  }
};
template <typename X, typename Out, typename F>
void map(StreamHandle stream, int64_t n, const X* x, Out* out, const F& f) {
  mapElements<kMapWidth<X, Out>>(stream, n, isVectorAligned(x) && isVectorAligned(out),
                                 Map1<X, Out, F>{x, out, f});
}

// out = f(x, y)
template <typename X, typename Y, typename Out, typename F>
struct Map2 {
  const X* x;
  const Y* y;
  Out* out;
  F f;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    const auto first = loadPack<kWidth>(x + i);
    const auto second = loadPack<kWidth>(y + i);
    Pack<Out, kWidth> to;
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) to.elements[e] = f(first.elements[e], second.elements[e]);
    storeVector(out + i, to);
  }
};
template <typename X, typename Y, typename Out, typename F>
void map(StreamHandle stream, int64_t n, const X* x, const Y* y, Out* out, const F& f) {
  const bool aligned = isVectorAligned(x) && isVectorAligned(y) && isVectorAligned(out);
  mapElements<kMapWidth<X, Y, Out>>(stream, n, aligned, Map2<X, Y, Out, F>{x, y, out, f});
}

}  // namespace mf::cuda
