#pragma once
// Splits loops into tasks whose bounds depend on the shape alone, never on the number of threads.
#include "core/pool.h"
#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {

// Elements per task of a memory-bound loop; smaller loops run on the calling thread.
constexpr int64_t kTaskElements = 16384;

// Calls f(begin, end) for consecutive blocks of `block` indices of [0, n).
template <typename F>
inline void forBlocks(int64_t n, int64_t block, F&& f) {
  Pool::instance().parallelFor((n + block - 1) / block, [&](int64_t task) {
    const int64_t begin = task * block, end = begin + block;
    f(begin, end < n ? end : n);
  });
}

template <typename F>
inline void forElements(int64_t n, F&& f) {
  forBlocks(n, kTaskElements, f);
}

// Calls f(begin, end) for groups of rows that hold about kTaskElements elements of work.
template <typename F>
inline void forRows(int64_t rows, int64_t width, F&& f) {
  forBlocks(rows, width >= kTaskElements ? 1 : kTaskElements / (width > 0 ? width : 1), f);
}

}  // namespace MF_CPU_NAMESPACE
