#include "cuda/cuda_backend.h"
#include "cuda/fault.cuh"
#include "cuda/gemm.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

// A plan is data: it is checked before memory is addressed by it. What is illegal is a fault and becomes
// legal.
struct CheckOffsets {
  const int32_t* offsets;
  int32_t* checked;
  int64_t experts, rows;
  Fault* fault;
  MF_DEVICE void operator()(int64_t e) const {
    const int32_t value = offsets[e], before = e == 0 ? 0 : offsets[e - 1];
    const bool legal =
        value >= before && value <= rows && (e != 0 || value == 0) && (e != experts || value == rows);
    if (!legal) report(fault, FaultKind::Offset, e, value, rows);
    checked[e] = value < 0 ? 0 : value > rows ? static_cast<int32_t>(rows) : value;
  }
};
struct CheckOrder {
  const int32_t* order;
  int32_t* checked;
  int64_t rows;
  Fault* fault;
  MF_DEVICE void operator()(int64_t s) const {
    const int32_t value = order[s];
    const bool legal = value >= 0 && value < rows;
    if (!legal) report(fault, FaultKind::Order, s, value, rows);
    checked[s] = legal ? value : 0;
  }
};

struct CheckedPlan {
  const int32_t *offsets = nullptr, *order = nullptr;
  // memory: rows + experts + 1 elements of scratch.
  CheckedPlan(StreamHandle stream, const View& offsets_, const View& order_, int64_t experts, int64_t rows,
              int32_t* memory, Fault* fault) {
    if (offsets_) {
      forElements(stream, experts + 1,
                  CheckOffsets{offsets_.as<int32_t>(), memory + rows, experts, rows, fault});
      offsets = memory + rows;
    }
    if (order_) {
      forElements(stream, rows, CheckOrder{order_.as<int32_t>(), memory, rows, fault});
      order = memory;
    }
  }
};

int64_t expertsOf(const View& w) {
  return w.shape.rank == 3 ? w.size(0) : 1;
}

RowsOf rowsOf(const View& view, RowMap map, const int32_t* order, int64_t topK) {
  return {view.data, view.size(-1), map, order, topK};
}

}  // namespace

void CudaBackend::groupedGemm(const GroupedGemmArgs& args) {
  const int64_t experts = expertsOf(args.w), rows = args.out.rows();
  const bool planned = args.offsets || args.order;
  const CheckedPlan plan(stream_, args.offsets, args.order, experts, rows,
                         planned ? scratchOf<int32_t>(rows + experts + 1) : nullptr, fault_);
  const Product product{{experts, rows, plan.offsets},
                        rowsOf(args.x, args.xRows, plan.order, args.topK),
                        args.w.data,
                        args.transposeW,
                        rowsOf(args.out, args.outRows, plan.order, args.topK),
                        args.bias.data,
                        args.epilogue,
                        args.activation,
                        args.preActivation.data};
  if (args.x.dtype == DType::bf16 && args.out.dtype == DType::f32)
    multiply<bf16, float>(stream_, product);
  else
    dispatchFloat(args.x.dtype, [&]<typename T>() { multiply<T, T>(stream_, product); });
  if (planned) raiseFault();
}

void CudaBackend::groupedGemmWeightGrad(const GroupedGemmWeightGradArgs& args) {
  const int64_t experts = expertsOf(args.dw);
  const int64_t rows = args.xRows == RowMap::Token ? args.x.rows() * args.topK : args.x.rows();
  const bool planned = args.offsets || args.order;
  const CheckedPlan plan(stream_, args.offsets, args.order, experts, rows,
                         planned ? scratchOf<int32_t>(rows + experts + 1) : nullptr, fault_);
  const RowsOf x = rowsOf(args.x, args.xRows, plan.order, args.topK);
  const RowsOf dy = rowsOf(args.dy, args.dyRows, plan.order, args.topK);
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    weightGradient<T, T>(stream_, {{experts, rows, plan.offsets},
                                   args.transposeOut ? dy : x,
                                   args.transposeOut ? x : dy,
                                   args.dw.data,
                                   false});
  });
  if (planned) raiseFault();
}

}  // namespace mf::cuda
