#pragma once
#include "cuda/common.cuh"
#include "cuda/fault.h"

namespace mf::cuda {

MF_DEVICE void report(Fault* fault, FaultKind kind, int64_t position, int64_t value, int64_t limit) {
  if (atomicCompareExchange(&fault->taken, 0, 1) != 0) return;
  fault->kind = kind;
  fault->position = position;
  fault->value = value;
  fault->limit = limit;
}

}  // namespace mf::cuda
