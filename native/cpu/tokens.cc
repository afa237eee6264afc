#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {
namespace {

// Calls f with a typed pointer to integer ids.
template <typename F>
void dispatchInteger(const View& ids, F&& f) {
  if (ids.dtype == DType::i64)
    f(ids.as<const int64_t>());
  else
    f(ids.as<const int32_t>());
}

}  // namespace

void CpuBackend::shiftLabels(const ShiftLabelsArgs& a) {
  const int64_t B = a.labels.size(0), T = a.labels.size(1);
  auto* out = a.out.as<int32_t>();
  dispatchInteger(a.labels, [&](const auto* labels) {
    for (int64_t b = 0; b < B; ++b)
      for (int64_t t = 0; t < T; ++t)
        out[b * T + t] = t + 1 < T ? static_cast<int32_t>(labels[b * T + t + 1]) : -100;
  });
}

void CpuBackend::lastTokenRows(const LastTokenRowsArgs& a) {
  const int64_t B = a.ids.size(0), T = a.ids.size(1);
  auto* rows = a.rows.as<int32_t>();
  dispatchInteger(a.ids, [&](const auto* ids) {
    for (int64_t b = 0; b < B; ++b) {
      int64_t count = 0;
      for (int64_t t = 0; t < T; ++t) count += a.pad < 0 || ids[b * T + t] != a.pad;
      rows[b] = static_cast<int32_t>(b * T + (count == 0 ? T : count) - 1);
    }
  });
}

}  // namespace MF_CPU_NAMESPACE
