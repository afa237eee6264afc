#include "cpu/gemm/plan_rows.h"

namespace MF_CPU_NAMESPACE {
namespace {

int64_t expertsOf(const View& w) {
  return w.shape.rank == 3 ? w.size(0) : 1;
}

// Sorted rows of a matrix whose memory rows are tokens or slots.
int64_t sortedRows(const View& view, RowMap map, int64_t topK) {
  return map == RowMap::Token ? view.rows() * topK : view.rows();
}

}  // namespace

void CpuBackend::groupedGemm(const GroupedGemmArgs& args) {
  const auto run = [&]<typename T, typename Out>() {
    const int64_t experts = expertsOf(args.w);
    multiplyGrouped(Product<T, Out>{
        .groups = checkedGroups("groupedGemm", args.out.rows(), experts, args.offsets, args.order),
        .x = rowsOf<const T>(args.x, args.xRows, args.order, args.topK),
        .w = args.w.as<T>(),
        .transposeW = args.transposeW,
        .out = rowsOf<Out>(args.out, args.outRows, args.order, args.topK),
        .bias = args.bias.as<T>(),
        .epilogue = args.epilogue,
        .activation = args.activation,
        .preActivation = args.preActivation.as<Out>(),
    });
  };
  if (args.x.dtype == DType::bf16 && args.out.dtype == DType::f32)
    run.template operator()<bf16, float>();
  else
    dispatchFloat(args.x.dtype, [&]<typename T>() { run.template operator()<T, T>(); });
}

void CpuBackend::groupedGemmWeightGrad(const GroupedGemmWeightGradArgs& args) {
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    const int64_t rows = sortedRows(args.x, args.xRows, args.topK);
    const int64_t experts = expertsOf(args.dw);
    const auto x = rowsOf<const T>(args.x, args.xRows, args.order, args.topK);
    const auto dy = rowsOf<const T>(args.dy, args.dyRows, args.order, args.topK);
    weightGradGrouped(WeightGrad<T, T>{
        .groups = checkedGroups("groupedGemmWeightGrad", rows, experts, args.offsets, args.order),
        .a = args.transposeOut ? dy : x,
        .b = args.transposeOut ? x : dy,
        .dw = args.dw.as<T>(),
    });
  });
}

}  // namespace MF_CPU_NAMESPACE
