#include "cuda/cuda_backend.h"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

template <typename I>
struct ShiftLabels {
  const I* labels;
  int32_t* out;
  int64_t T;
  MF_DEVICE void operator()(int64_t i) const {
    out[i] = i % T + 1 < T ? static_cast<int32_t>(labels[i + 1]) : -100;
  }
};

template <typename I>
struct LastTokenRows {
  const I* ids;
  int32_t* rows;
  int64_t T, pad;
  MF_DEVICE void operator()(int64_t b) const {
    const int count =
        rowSum<int>(T, [&](int64_t t) { return static_cast<int>(pad < 0 || ids[b * T + t] != pad); });
    if (threadId() == 0) rows[b] = static_cast<int32_t>(b * T + (count == 0 ? T : count) - 1);
  }
};

}  // namespace

void CudaBackend::shiftLabels(const ShiftLabelsArgs& args) {
  dispatchInteger(args.labels.dtype, [&]<typename I>() {
    forElements(stream_, args.labels.numel(),
                ShiftLabels<I>{args.labels.as<I>(), args.out.as<int32_t>(), args.labels.size(1)});
  });
}

void CudaBackend::lastTokenRows(const LastTokenRowsArgs& args) {
  dispatchInteger(args.ids.dtype, [&]<typename I>() {
    forRows(stream_, args.ids.size(0), args.ids.size(1),
            LastTokenRows<I>{args.ids.as<I>(), args.rows.as<int32_t>(), args.ids.size(1), args.pad});
  });
}

}  // namespace mf::cuda
