#include "cuda/cuda_backend.h"
#include "cuda/map.cuh"
#include "cuda/row_cache.cuh"

namespace mf::cuda {
namespace {

// `inner` is cut into chunks whose sums are added in order: by a block each where a row is contiguous, by a
// thread for each column elsewhere.
constexpr int64_t kRowChunk = 4096;
constexpr int64_t kColumnChunk = 128;

// in [outer, inner] -> partial [outer, chunks]
template <typename T, typename Out>
struct SumRowChunk {
  const T* in;
  Out* out;
  int64_t inner, chunks;
  MF_DEVICE void operator()(int64_t unit) const {
    using A = Accumulate<T>;
    const int64_t first = unit % chunks * kRowChunk;
    const T* from = in + unit / chunks * inner + first;
    const A sum =
        rowSum<A>(minimum(kRowChunk, inner - first), [&](int64_t i) { return static_cast<A>(from[i]); });
    if (threadId() == 0) out[unit] = static_cast<Out>(sum);
  }
};

// in [outer, inner, tail] -> out [outer, chunks, tail]
template <typename T, typename Out>
struct SumColumnChunk {
  const T* in;
  Out* out;
  int64_t inner, tail, chunks;
  MF_DEVICE void operator()(int64_t i) const {
    using A = Accumulate<T>;
    const int64_t column = i % tail, chunk = i / tail % chunks, o = i / tail / chunks;
    const int64_t end = minimum(inner, (chunk + 1) * kColumnChunk);
    A sum = A(0);
    for (int64_t r = chunk * kColumnChunk; r < end; ++r)
      sum += static_cast<A>(in[(o * inner + r) * tail + column]);
    out[i] = static_cast<Out>(sum);
  }
};

// partial [outer, chunks, tail] -> out [outer, tail]
template <typename A, typename T>
struct SumChunks {
  const A* partial;
  T* out;
  int64_t chunks, tail;
  MF_DEVICE void operator()(int64_t i) const {
    const A* from = partial + i / tail * chunks * tail + i % tail;
    A sum = A(0);
    for (int64_t c = 0; c < chunks; ++c) sum += from[c * tail];
    out[i] = static_cast<T>(sum);
  }
};

template <typename T>
struct Expand {
  const T* in;
  T* out;
  int64_t inner, tail;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    storeVector(out + i, loadPack<kWidth>(in + i / tail / inner * tail + i % tail));
  }
};

// The same for rows of equal elements.
template <typename T>
struct ExpandScalars {
  const T* in;
  T* out;
  int64_t inner;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    Pack<T, kWidth> to;
    const T value = in[i / inner];
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e) to.elements[e] = value;
    storeVector(out + i, to);
  }
};

template <typename T>
struct MulRows {
  const T* x;
  const Accumulate<T>* s;
  T* out;
  int64_t width;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    const auto from = loadPack<kWidth>(x + i);
    const Accumulate<T> factor = s[i / width];
    Pack<T, kWidth> to;
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e)
      to.elements[e] = static_cast<T>(static_cast<Accumulate<T>>(from.elements[e]) * factor);
    storeVector(out + i, to);
  }
};

template <typename T>
struct RowDot {
  const T *a, *b;
  Accumulate<T>* out;
  int64_t width;
  MF_DEVICE void operator()(int64_t row) const {
    using A = Accumulate<T>;
    const T *left = a + row * width, *right = b + row * width;
    const A sum =
        rowSum<A>(width, [&](int64_t i) { return static_cast<A>(left[i]) * static_cast<A>(right[i]); });
    if (threadId() == 0) out[row] = sum;
  }
  MF_DEVICE void cached(int64_t row) const {
    using A = Accumulate<T>;
    RowCache<T> left(a + row * width, width), right(b + row * width, width);
    const A sum = left.sumWith(right, [](A x, A y) { return x * y; });
    if (threadId() == 0) out[row] = sum;
  }
};

}  // namespace

void CudaBackend::sum(const SumArgs& args) {
  const int64_t outer = args.outer, inner = args.inner, tail = args.tail;
  const int64_t chunk = tail == 1 ? kRowChunk : kColumnChunk,
                chunks = inner > chunk ? ceilDiv(inner, chunk) : 1;
  if (outer * tail == 0) return;
  dispatchFloat(args.in.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const T* in = args.in.as<T>();
    T* out = args.out.as<T>();
    const auto sumInto = [&]<typename Out>(Out* to) {
      if (tail == 1)
        forRows(stream_, outer * chunks, minimum(inner, chunk), SumRowChunk<T, Out>{in, to, inner, chunks});
      else
        forElements(stream_, outer * chunks * tail, SumColumnChunk<T, Out>{in, to, inner, tail, chunks});
    };
    if (chunks == 1) return sumInto(out);
    A* partial = scratchOf<A>(outer * chunks * tail);
    sumInto(partial);
    forElements(stream_, outer * tail, SumChunks<A, T>{partial, out, chunks, tail});
  });
}

void CudaBackend::expand(const ExpandArgs& args) {
  dispatchFloat(args.in.dtype, [&]<typename T>() {
    const T* in = args.in.as<T>();
    T* out = args.out.as<T>();
    const int64_t n = args.outer * args.inner * args.tail, run = args.tail == 1 ? args.inner : args.tail;
    const bool aligned = isVectorAligned(in) && isVectorAligned(out) && run % kVector<T> == 0;
    if (args.tail == 1)
      mapElements<kVector<T>>(stream_, n, aligned, ExpandScalars<T>{in, out, args.inner});
    else
      mapElements<kVector<T>>(stream_, n, aligned, Expand<T>{in, out, args.inner, args.tail});
  });
}

void CudaBackend::mulRows(const MulRowsArgs& args) {
  const int64_t rows = args.s.numel(), n = args.x.numel();
  if (n == 0) return;
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    const bool aligned =
        isVectorAligned(args.x.data) && isVectorAligned(args.out.data) && n / rows % kVector<T> == 0;
    mapElements<kVector<T>>(
        stream_, n, aligned,
        MulRows<T>{args.x.as<T>(), args.s.as<Accumulate<T>>(), args.out.as<T>(), n / rows});
  });
}

void CudaBackend::rowDot(const RowDotArgs& args) {
  const int64_t rows = args.out.numel(), width = rows == 0 ? 0 : args.a.numel() / rows;
  dispatchFloat(args.a.dtype, [&]<typename T>() {
    const bool aligned = isVectorAligned(args.a.data) && isVectorAligned(args.b.data);
    forCachedRows<T>(stream_, rows, width, aligned,
                     RowDot<T>{args.a.as<T>(), args.b.as<T>(), args.out.as<Accumulate<T>>(), width});
  });
}

}  // namespace mf::cuda
