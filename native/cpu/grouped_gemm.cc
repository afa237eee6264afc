#include <string>

#include "core/error.h"
#include "cpu/gemm/product.h"

namespace MF_CPU_NAMESPACE {
namespace {

[[noreturn]] void invalid(const char* op, const char* array, int64_t index, int64_t value,
                          const std::string& expected) {
  throw Error(ErrorKind::Kernel, std::string(op) + ": " + array + "[" + std::to_string(index) + "] is " +
                                     std::to_string(value) + ", expected " + expected);
}

// A plan is data: it is checked before memory is addressed by it.
Groups checkedGroups(const char* op, int64_t rows, int64_t experts, const View& offsets, const View& order) {
  const int32_t* starts = offsets.as<int32_t>();
  const int32_t* slots = order.as<int32_t>();
  if (starts) {
    for (int64_t e = 0, last = 0; e <= experts; last = starts[e], ++e) {
      const bool end = e == 0 || e == experts;
      const int64_t exact = e == 0 ? 0 : rows;
      if (end && starts[e] != exact) invalid(op, "offsets", e, starts[e], std::to_string(exact));
      if (starts[e] < last || starts[e] > rows)
        invalid(op, "offsets", e, starts[e], std::to_string(last) + " to " + std::to_string(rows));
    }
  }
  if (slots) {
    for (int64_t s = 0; s < rows; ++s)
      if (slots[s] < 0 || slots[s] >= rows)
        invalid(op, "order", s, slots[s], "0 <= row < " + std::to_string(rows));
  }
  return {experts, rows, starts};
}

template <typename T>
Rows<T> rowsOf(const View& view, RowMap map, const View& order, int64_t topK) {
  return {view.as<T>(), view.size(-1), map, order.as<int32_t>(), topK};
}

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
