#pragma once
// What a grouped product is: rows by expert, where the rows lie in memory, and what happens to a finished
// sum.
#include <algorithm>
#include <vector>

#include "core/pool.h"
#include "cpu/activation.h"
#include "cpu/gemm/word.h"

namespace MF_CPU_NAMESPACE {
// Sorted rows [begin(e), end(e)) belong to expert e. Without offsets one expert has all the rows.
struct Groups {
  int64_t experts, rows;
  const int32_t* offsets;

  int64_t begin(int64_t e) const { return offsets ? offsets[e] : 0; }
  int64_t end(int64_t e) const { return offsets ? offsets[e + 1] : rows; }
};

// Some of the sorted rows of one expert.
struct Span {
  int64_t expert, begin, end;
  int64_t rows() const { return end - begin; }
};

// Spans of at most `most` rows each, those of the largest expert first; experts without rows are left out,
// or at the end with withEmpty.
inline std::vector<Span> spansByRows(const Groups& groups, int64_t most, bool withEmpty) {
  std::vector<Span> experts, spans;
  for (int64_t e = 0; e < groups.experts; ++e)
    if (withEmpty || groups.end(e) > groups.begin(e)) experts.push_back({e, groups.begin(e), groups.end(e)});
  std::sort(experts.begin(), experts.end(), [](const Span& a, const Span& b) {
    return a.rows() != b.rows() ? a.rows() > b.rows() : a.expert < b.expert;
  });
  for (const Span& span : experts) {
    const int64_t parts = std::max<int64_t>(1, divideUp(span.rows(), most));
    for (int64_t i = 0; i < parts; ++i)
      spans.push_back(
          {span.expert, span.begin + span.rows() * i / parts, span.begin + span.rows() * (i + 1) / parts});
  }
  return spans;
}

// body(task) for each task, on all threads when there are multiply-adds enough to pay for the fork.
template <typename Body>
inline void forTasks(int64_t tasks, int64_t multiplyAdds, Body&& body) {
  if (multiplyAdds < (1 << 16)) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
  } else {
    Pool::instance().parallelFor(tasks, body);
  }
}

// Rows of a row-major matrix, found by sorted row.
template <typename T>
struct Rows {
  T* data;
  int64_t width;
  RowMap map = RowMap::Sorted;
  const int32_t* order = nullptr;
  int64_t topK = 1;

  int64_t memoryRow(int64_t s) const {
    if (map == RowMap::Sorted) return s;
    return map == RowMap::Slot ? order[s] : order[s] / topK;
  }
  T* operator[](int64_t s) const { return data + memoryRow(s) * width; }
};

// out[s, :] = epilogue(x[s, :] w[e] + bias); w [E, in, out], or [E, out, in] with transposeW.
template <typename T, typename Out>
struct Product {
  Groups groups;
  Rows<const T> x;
  const T* w;
  bool transposeW;
  Rows<Out> out;
  const T* bias = nullptr;
  Epilogue epilogue = Epilogue::None;
  UnaryKind activation = UnaryKind::Gelu;
  Out* preActivation = nullptr;  // rows as in out

  int64_t in() const { return x.width; }
  int64_t width() const { return out.width; }
  const T* weight(int64_t e) const { return w + e * in() * width(); }
};

// dw[e] = sum over the expert's rows of a_row^T b_row: dw [E, a's width, b's width].
template <typename T, typename Out>
struct WeightGrad {
  Groups groups;
  Rows<const T> a, b;
  Out* dw;
  bool accumulate = false;
};

// Writes columns [column, column + n) of sorted row s from its sums.
template <typename T, typename Out>
inline void finishRow(const Product<T, Out>& p, int64_t s, int64_t column, int64_t n,
                      Accumulate<T>* __restrict sum) {
  using Acc = Accumulate<T>;
  const int64_t offset = p.out.memoryRow(s) * p.width() + column;
  Out* __restrict out = p.out.data + offset;
  Out* __restrict pre = p.preActivation ? p.preActivation + offset : nullptr;
  if (p.bias) {
    const T* __restrict bias = p.bias + column;
    for (int64_t j = 0; j < n; ++j) sum[j] += static_cast<Acc>(bias[j]);
  }
  if (p.epilogue == Epilogue::None) {
    for (int64_t j = 0; j < n; ++j) out[j] = static_cast<Out>(sum[j]);
  } else if (p.epilogue == Epilogue::Activation) {
    if (pre)
      for (int64_t j = 0; j < n; ++j) pre[j] = static_cast<Out>(sum[j]);
    dispatchActivation(p.activation, [&]<UnaryKind Kind>() {
      for (int64_t j = 0; j < n; ++j) out[j] = static_cast<Out>(activation<Kind>(sum[j]));
    });
  } else {
    dispatchActivation(p.activation, [&]<UnaryKind Kind>() {
      for (int64_t j = 0; j < n; ++j)
        out[j] = static_cast<Out>(sum[j] * activationGrad<Kind>(static_cast<Acc>(pre[j])));
    });
  }
}

// Instantiated in f64.cc, f32.cc and bf16.cc.
template <typename T, typename Out>
void multiplyGrouped(const Product<T, Out>& product);
template <typename T, typename Out>
void weightGradGrouped(const WeightGrad<T, Out>& grad);

}  // namespace MF_CPU_NAMESPACE
