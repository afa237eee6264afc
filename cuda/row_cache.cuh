#pragma once
// A row in the registers of its block, so that memory is read once however often the row is gone through.
#include "cuda/pack.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {

template <typename T>
class RowCache {
  using A = Accumulate<T>;
  static constexpr int kPacks = 4, kMostThreads = 256;

 public:
  // Rows of whole vectors, up to 16 KB of them.
  static bool fits(int64_t width) {
    return width % kVector<T> == 0 && width <= kPacks * kMostThreads * kVector<T>;
  }
  static int threads(int64_t width) {
    const int64_t each = kPacks * kVector<T>;
    return width <= 32 * each ? 32 : width <= 128 * each ? 128 : kMostThreads;
  }

  MF_DEVICE RowCache(const T* row, int64_t width) : width_(width) {
    MF_UNROLL
    for (int p = 0; p < kPacks; ++p) {
      if (column(p) >= width_) continue;
      const Pack16<T> vector = loadVector(row + column(p));
      MF_UNROLL
      for (int e = 0; e < kVector<T>; ++e) values_[p][e] = static_cast<A>(vector.elements[e]);
    }
  }
  // Calls f(column, value) for this thread's elements, which f may change.
  template <typename F>
  MF_DEVICE void forEach(F f) {
    MF_UNROLL
    for (int p = 0; p < kPacks; ++p) {
      if (column(p) >= width_) continue;
      MF_UNROLL
      for (int e = 0; e < kVector<T>; ++e) f(column(p) + e, values_[p][e]);
    }
  }
  // The same beside another row.
  template <typename F>
  MF_DEVICE void forEachWith(RowCache& other, F f) {
    MF_UNROLL
    for (int p = 0; p < kPacks; ++p) {
      if (column(p) >= width_) continue;
      MF_UNROLL
      for (int e = 0; e < kVector<T>; ++e) f(column(p) + e, values_[p][e], other.values_[p][e]);
    }
  }
  // The sum over the row of f(value), in every thread.
  template <typename F>
  MF_DEVICE A sum(F f) {
    A total = A(0);
    forEach([&](int64_t, A value) { total += f(value); });
    return blockReduce(total, Add{});
  }
  template <typename F>
  MF_DEVICE A sumWith(RowCache& other, F f) {
    A total = A(0);
    forEachWith(other, [&](int64_t, A value, A second) { total += f(value, second); });
    return blockReduce(total, Add{});
  }
  MF_DEVICE A most() {
    A top = A(-INFINITY);
    forEach([&](int64_t, A value) { top = Max{}(value, top); });
    return blockReduce(top, Max{});
  }
  MF_DEVICE void store(T* row) const {
    MF_UNROLL
    for (int p = 0; p < kPacks; ++p) {
      if (column(p) >= width_) continue;
      Pack16<T> vector;
      MF_UNROLL
      for (int e = 0; e < kVector<T>; ++e) vector.elements[e] = static_cast<T>(values_[p][e]);
      storeVector(row + column(p), vector);
    }
  }

 private:
  MF_DEVICE int64_t column(int pack) const {
    return (int64_t{pack} * blockThreads() + threadId()) * kVector<T>;
  }

  int64_t width_;
  A values_[kPacks][kVector<T>] = {};
};

// Calls f.cached(row) in a block per row where rows fit into registers, f(row) elsewhere.
template <typename F>
struct CachedRows {
  F f;
  MF_DEVICE void operator()(int64_t row) const { f.cached(row); }
};
template <typename T, typename F>
void forCachedRows(StreamHandle stream, int64_t rows, int64_t width, bool aligned, const F& f) {
  if (aligned && RowCache<T>::fits(width))
    launch(rowKernel<CachedRows<F>>, {rows}, RowCache<T>::threads(width), 0, stream, CachedRows<F>{f});
  else
    forRows(stream, rows, width, f);
}

}  // namespace mf::cuda
