// The matrix of weights itself, for inspection: a block per row.
#include "cuda/attention.cuh"
#include "cuda/cuda_backend.h"

namespace mf::cuda {
namespace {

// One row of the matrix [B, K, H, Tq, Tk].
template <typename T>
struct WeightRow {
  using A = Accumulate<T>;
  AttentionInput<T> in;
  A* weights;
  bool stickBreaking;

  MF_DEVICE void operator()(int64_t index) const {
    const int64_t i = index % in.s.Tq, h = index / in.s.Tq % in.s.H, k = index / in.s.Tq / in.s.H % in.s.K;
    const int64_t b = index / in.s.Tq / in.s.H / in.s.K, row = i * in.s.K + k;
    const int64_t limit = in.attendCurrent ? in.position(row) : in.position(row) - 1;
    const int64_t start = in.documentStart ? in.documentStart[b * in.s.Tq + i] : 0;
    const auto sees = [&](int64_t j) {
      return j >= start && j <= limit && (!in.keyMask || in.keyMask[b * in.s.Tk + j] != 0);
    };
    const T* q = in.q + in.rowOffset(b, h, row);
    A* out = weights + index * in.s.Tk;
    forRow(in.s.Tk, [&](int64_t j) {
      const T* key = in.k + in.keyOffset(b, h, j);
      A dot = A(0);
      for (int64_t c = 0; sees(j) && c < in.s.C; ++c) dot += static_cast<A>(q[c]) * static_cast<A>(key[c]);
      out[j] = dot * in.scale;
    });
    syncThreads();
    if (!stickBreaking) {
      const A top = rowMax<A>(in.s.Tk, [&](int64_t j) { return sees(j) ? out[j] : A(-INFINITY); });
      const A sum = rowSum<A>(in.s.Tk, [&](int64_t j) { return sees(j) ? std::exp(out[j] - top) : A(0); });
      forRow(in.s.Tk, [&](int64_t j) { out[j] = sees(j) ? std::exp(out[j] - top) / sum : A(0); });
      return;
    }
    if (threadId() != 0) return;
    double stick = 1;
    for (int64_t j = in.s.Tk - 1; j >= 0; --j) {
      const double logit = static_cast<double>(out[j]), u = std::exp(-std::abs(logit)), large = 1 / (1 + u);
      out[j] = sees(j) ? static_cast<A>((logit < 0 ? u * large : large) * stick) : A(0);
      if (sees(j)) stick *= logit < 0 ? large : u * large;
    }
  }
};

}  // namespace

void CudaBackend::attentionWeights(const AttentionWeightsArgs& args) {
  dispatchFloat(args.q.dtype, [&]<typename T>() {
    const AttentionShape& s = args.shape;
    forRows(stream_, s.B * s.K * s.H * s.Tq, s.Tk,
            WeightRow<T>{attentionInput<T>(args, args.k), args.weights.as<Accumulate<T>>(),
                         args.kind == AttentionKind::StickBreaking});
  });
}

}  // namespace mf::cuda
