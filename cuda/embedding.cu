#include "cuda/counting_sort.cuh"
#include "cuda/cuda_backend.h"
#include "cuda/fault.cuh"
#include "cuda/map.cuh"

namespace mf::cuda {
namespace {

constexpr int kColumns = 4;  // of dweight per thread
constexpr int kDigitBits = 8, kDigits = 1 << kDigitBits;

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

// Tokens sorted by a digit of their ids: least digit first, each pass stable, so that in the end tokens lie
// by id and rise within it. An id out of range counts as V.
template <typename I>
struct IdDigit {
  const I* ids;
  const int32_t* from;  // tokens in the order of the pass before; null: rising
  int32_t* to;
  int64_t V;
  int shift;
  MF_DEVICE int32_t token(int64_t r) const { return from ? from[r] : static_cast<int32_t>(r); }
  MF_DEVICE int32_t key(int64_t r) const {
    const int64_t id = ids[token(r)];
    return static_cast<int32_t>((id >= 0 && id < V ? id : V) >> shift & (kDigits - 1));
  }
  MF_DEVICE void place(int64_t r, int32_t sorted) const { to[sorted] = token(r); }
  MF_DEVICE void begins(int32_t, int32_t) const {}
};

// Tokens [N] by id, in one of the two halves of memory [2 N] + the counts of the sort.
template <typename I>
const int32_t* sortTokens(StreamHandle stream, const I* ids, int64_t N, int64_t V, int32_t* memory) {
  const SortBlocks blocks(N, 1);
  const int32_t* sorted = nullptr;
  for (int shift = 0; shift == 0 || V >> shift > 0; shift += kDigitBits) {
    int32_t* to = sorted == memory ? memory + N : memory;
    sortRows(stream, Sort<IdDigit<I>>{
                         {ids, sorted, to, V, shift}, N, kDigits, blocks.rows, blocks.count, memory + 2 * N});
    sorted = to;
  }
  return sorted;
}

// The block of the first token of an id adds the rows of all of them, in rising order. kWidth: of what is
// read at once, kColumns where rows are aligned.
template <typename T, typename I, int kWidth>
MF_KERNEL void sumTokensKernel(const T* dy, const I* ids, const int32_t* sorted, int64_t N, int64_t V,
                               int64_t D, T* dweight, Fault* fault) {
  using A = Accumulate<T>;
  MF_SHARED(int32_t, tokens, kThreads);
  const int64_t id = ids[sorted[blockId()]];
  if (id < 0 || id >= V) {
    if (threadId() == 0) report(fault, FaultKind::Id, sorted[blockId()], id, V);
    return;
  }
  if (blockId() > 0 && ids[sorted[blockId() - 1]] == id) return;

  const int64_t column = (int64_t{blockIdY()} * kThreads + threadId()) * kColumns;
  A sum[kColumns] = {};
  int count = kThreads;
  for (int64_t first = blockId(); count == kThreads; first += kThreads) {
    const int64_t s = first + threadId();
    const int32_t token = s < N ? sorted[s] : 0;
    const bool same = s < N && ids[token] == id;
    count = blockReduce(static_cast<int>(same), Add{});  // they lie side by side
    tokens[threadId()] = token;
    syncThreads();
    MF_UNROLL
    for (int c = 0; c < kColumns; c += kWidth) {
      if (column + c >= D) continue;
      const T* rows = dy + column + c;
      for (int t = 0; t < count; ++t) {
        const Pack<T, kWidth> pack = loadPack<kWidth>(rows + tokens[t] * D);
        MF_UNROLL
        for (int e = 0; e < kWidth; ++e) sum[c + e] += static_cast<A>(pack.elements[e]);
      }
    }
    syncThreads();
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
  if (N == 0) return;
  dispatchFloat(args.dy.dtype, [&]<typename T>() {
    dispatchInteger(args.ids.dtype, [&]<typename I>() {
      constexpr int kWidth = sizeof(T) < sizeof(double) ? kColumns : kVector<T>;
      const bool aligned = isVectorAligned(args.dy.data) && D % kColumns == 0;
      const I* ids = args.ids.as<I>();
      const int32_t* sorted =
          sortTokens(stream_, ids, N, V, scratchOf<int32_t>(2 * N + SortBlocks(N, 1).count * kDigits));
      launch(aligned ? sumTokensKernel<T, I, kWidth> : sumTokensKernel<T, I, 1>,
             {N, ceilDiv(D, kThreads * kColumns)}, kThreads, 0, stream_, args.dy.as<T>(), ids, sorted, N, V,
             D, args.dweight.as<T>(), fault_);
    });
  });
  raiseFault();
}

}  // namespace mf::cuda
