#include "cuda/cuda_backend.h"
#include "cuda/gemm.cuh"
#include "cuda/plan.cuh"

namespace mf::cuda {
namespace {

int64_t expertsOf(const View& w) {
  return w.shape.rank == 3 ? w.size(0) : 1;
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
  const bool planned = args.offsets || args.order, plain = args.x.dtype == DType::f64;
  const int64_t parts =
      plain ? 1 : gradientParts({experts, rows, nullptr}, args.dw.size(-2), args.dw.size(-1));
  const int64_t sums = parts > 1 ? parts * args.dw.numel() : 0;
  float* memory = sums > 0 || planned ? scratchOf<float>(sums + rows + experts + 1) : nullptr;
  const CheckedPlan plan(stream_, args.offsets, args.order, experts, rows,
                         reinterpret_cast<int32_t*>(memory + sums), fault_);
  const RowsOf x = rowsOf(args.x, args.xRows, plan.order, args.topK);
  const RowsOf dy = rowsOf(args.dy, args.dyRows, plan.order, args.topK);
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    weightGradient<T, T>(stream_, {{experts, rows, plan.offsets},
                                   args.transposeOut ? dy : x,
                                   args.transposeOut ? x : dy,
                                   args.dw.data,
                                   false,
                                   sums > 0 ? memory : nullptr});
  });
  if (planned) raiseFault();
}

}  // namespace mf::cuda
