#pragma once
// From the Views of a plan to the groups and rows of a product.
#include <string>

#include "core/error.h"
#include "cpu/gemm/product.h"

namespace MF_CPU_NAMESPACE {
[[noreturn]] inline void invalid(const char* op, const char* array, int64_t index, int64_t value,
                                 const std::string& expected) {
  throw Error(ErrorKind::Kernel, std::string(op) + ": " + array + "[" + std::to_string(index) + "] is " +
                                     std::to_string(value) + ", expected " + expected);
}

// A plan is data: it is checked before memory is addressed by it.
inline Groups checkedGroups(const char* op, int64_t rows, int64_t experts, const View& offsets,
                            const View& order) {
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
inline Rows<T> rowsOf(const View& view, RowMap map, const View& order, int64_t topK) {
  return {view.as<T>(), view.size(-1), map, order.as<int32_t>(), topK};
}

}  // namespace MF_CPU_NAMESPACE
