#include "cuda/cuda_backend.h"
#include "cuda/fault.cuh"
#include "cuda/pack.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

// In units that know no dtype.
template <typename T>
struct CacheAppend {
  const T* in;
  T* cache;
  int64_t rows, capacity, width, start;  // rows: of one sequence of `in`
  const int32_t* position;
  Fault* fault;
  MF_DEVICE void operator()(int64_t i) const {
    const int64_t b = i / width / rows, t = i / width % rows, first = start + (position ? *position : 0);
    if (first >= 0 && first + rows <= capacity)
      cache[(b * capacity + first + t) * width + i % width] = in[i];
    else if (i == 0)
      report(fault, FaultKind::CacheRow, 0, first, capacity - rows + 1);
  }
};

// Calls f with an integer of 16, 8, 4, 2 or 1 bytes: the widest that divides the pieces and their addresses.
template <typename F>
void dispatchWidth(uintptr_t divisible, F&& f) {
  if (divisible % 16 == 0) return f.template operator()<Pack16<uint64_t>>();
  if (divisible % 8 == 0) return f.template operator()<uint64_t>();
  if (divisible % 4 == 0) return f.template operator()<uint32_t>();
  if (divisible % 2 == 0) return f.template operator()<uint16_t>();
  f.template operator()<uint8_t>();
}

}  // namespace

void CudaBackend::cacheAppend(const CacheAppendArgs& args) {
  const int64_t bytes = args.in.size(2) * static_cast<int64_t>(itemSize(args.in.dtype));
  const auto address = [](const View& view) { return reinterpret_cast<uintptr_t>(view.data); };
  dispatchWidth(static_cast<uintptr_t>(bytes) | address(args.in) | address(args.cache), [&]<typename T>() {
    const int64_t width = bytes / static_cast<int64_t>(sizeof(T));
    forElements(stream_, args.in.size(0) * args.in.size(1) * width,
                CacheAppend<T>{args.in.as<T>(), args.cache.as<T>(), args.in.size(1), args.cache.size(1),
                               width, args.start, args.position.as<int32_t>(), fault_});
  });
  raiseFault();
}

}  // namespace mf::cuda
