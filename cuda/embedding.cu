#include "cuda/cuda_backend.h"
#include "cuda/fault.cuh"
#include "cuda/map.cuh"

namespace mf::cuda {
namespace {

constexpr int kColumns = 4;  // of dweight per thread

template <typename T, typename I>
struct Lookup {
  const T* weight;
  const I* ids;
  T* out;
  int64_t V, D;
  Fault* fault;
  template <int kWidth>
  MF_DEVICE void operator()(int64_t i) const {
    const int64_t n = i / D, column = i % D, id = ids[n];
    const bool legal = id >= 0 && id < V;
    if (!legal && column == 0) report(fault, FaultKind::Id, n, id, V);
    Pack<T, kWidth> row;
    if (legal) row = loadPack<kWidth>(weight + id * D + column);
    MF_UNROLL
    for (int e = 0; e < kWidth; ++e)
      if (!legal) row.elements[e] = static_cast<T>(NAN);
    storeVector(out + i, row);
  }
};

// The block of token n adds the rows of all tokens with its id, in rising order, if n is the first of them.
// kWidth: of what is read at once, kColumns where rows are aligned.
template <typename T, typename I, int kWidth>
MF_KERNEL void sumTokensKernel(const T* dy, const I* ids, int64_t N, int64_t V, int64_t D, T* dweight,
                               Fault* fault) {
  using A = Accumulate<T>;
  MF_SHARED(int, same, kThreads);
  const int64_t n = blockId(), id = ids[n];
  if (id < 0 || id >= V) {
    if (threadId() == 0) report(fault, FaultKind::Id, n, id, V);
    return;
  }
  int earlier = 0;
  for (int64_t m = threadId(); m < n; m += kThreads) earlier |= ids[m] == id;
  if (blockReduce(earlier, Add{}) != 0) return;

  const int64_t column = (int64_t{blockIdY()} * kThreads + threadId()) * kColumns;
  A sum[kColumns] = {};
  for (int64_t first = n; first < N; first += kThreads) {
    const int64_t m = first + threadId();
    syncThreads();
    same[threadId()] = m < N && ids[m] == id;
    syncThreads();
    for (int t = 0; t < kThreads; ++t) {
      if (!same[t]) continue;
      MF_UNROLL
      for (int c = 0; c < kColumns; c += kWidth) {
        if (column + c >= D) continue;
        const Pack<T, kWidth> pack = loadPack<kWidth>(dy + (first + t) * D + column + c);
        MF_UNROLL
        for (int e = 0; e < kWidth; ++e) sum[c + e] += static_cast<A>(pack.elements[e]);
      }
    }
  }
  for (int c = 0; c < kColumns; ++c)
    if (column + c < D) dweight[id * D + column + c] = static_cast<T>(sum[c]);
}

}  // namespace

void CudaBackend::embedding(const EmbeddingArgs& args) {
  const int64_t V = args.weight.size(0), D = args.weight.size(1);
  dispatchFloat(args.weight.dtype, [&]<typename T>() {
    dispatchInteger(args.ids.dtype, [&]<typename I>() {
      const bool aligned =
          D % kVector<T> == 0 && isVectorAligned(args.weight.data) && isVectorAligned(args.out.data);
      mapElements<kVector<T>>(
          stream_, args.out.numel(), aligned,
          Lookup<T, I>{args.weight.as<T>(), args.ids.as<I>(), args.out.as<T>(), V, D, fault_});
    });
  });
  raiseFault();
}

void CudaBackend::embeddingBackward(const EmbeddingBackwardArgs& args) {
  const int64_t V = args.dweight.size(0), D = args.dweight.size(1), N = args.ids.numel();
  fill({args.dweight, 0.0});
  dispatchFloat(args.dy.dtype, [&]<typename T>() {
    dispatchInteger(args.ids.dtype, [&]<typename I>() {
      constexpr int kWidth = sizeof(T) < sizeof(double) ? kColumns : kVector<T>;
      const bool aligned = isVectorAligned(args.dy.data) && D % kColumns == 0;
      launch(aligned ? sumTokensKernel<T, I, kWidth> : sumTokensKernel<T, I, 1>,
             {N, ceilDiv(D, kThreads * kColumns)}, kThreads, 0, stream_, args.dy.as<T>(), args.ids.as<I>(), N,
             V, D, args.dweight.as<T>(), fault_);
    });
  });
  raiseFault();
}

}  // namespace mf::cuda
