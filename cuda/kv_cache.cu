#include "cuda/cuda_backend.h"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

template <typename T>
struct CacheAppend {
  const T* in;
  T* cache;
  int64_t rows, capacity, width, start;  // rows: of one sequence of `in`
  MF_DEVICE void operator()(int64_t i) const {
    const int64_t b = i / width / rows, t = i / width % rows;
    cache[(b * capacity + start + t) * width + i % width] = in[i];
  }
};

// Copies know no dtypes, only widths.
template <typename F>
void dispatchWidth(size_t bytes, F&& f) {
  if (bytes == 8) return f.template operator()<uint64_t>();
  if (bytes == 4) return f.template operator()<uint32_t>();
  if (bytes == 2) return f.template operator()<uint16_t>();
  f.template operator()<uint8_t>();
}

}  // namespace

void CudaBackend::cacheAppend(const CacheAppendArgs& args) {
  dispatchWidth(itemSize(args.in.dtype), [&]<typename T>() {
    forElements(stream_, args.in.numel(),
                CacheAppend<T>{args.in.as<T>(), args.cache.as<T>(), args.in.size(1), args.cache.size(1),
                               args.in.size(2), args.start});
  });
}

}  // namespace mf::cuda
