#pragma once
// A routing plan as the products read it.
#include "cuda/fault.cuh"
#include "cuda/gemm.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {

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

inline RowsOf rowsOf(const View& view, RowMap map, const int32_t* order, int64_t topK) {
  return {view.data, view.size(-1), map, order, topK};
}

// Where row s of the sorted order lies.
MF_DEVICE int64_t memoryRow(const RowsOf& rows, int64_t s) {
  if (rows.map == RowMap::Sorted) return s;
  const int64_t slot = rows.order[s];
  return rows.map == RowMap::Slot ? slot : slot / rows.topK;
}

}  // namespace mf::cuda
