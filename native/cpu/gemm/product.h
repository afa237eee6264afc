#pragma once
// What a grouped product is: rows by expert, where the rows lie in memory, and what happens to a finished
// sum.
#include <algorithm>
#include <atomic>
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

// Deals tasks [0, count) to threads from both ends, each thread's next one early.
class TwoEnds {
 public:
  explicit TwoEnds(int64_t count) : count_(count) {}
  // A task, or -1 when none is left.
  int64_t take(bool fromEnd) {
    if (taken_.fetch_add(1, std::memory_order_relaxed) >= count_) return -1;
    return fromEnd ? count_ - 1 - end_.fetch_add(1, std::memory_order_relaxed)
                   : begin_.fetch_add(1, std::memory_order_relaxed);
  }

 private:
  int64_t count_;
  std::atomic<int64_t> taken_{0}, begin_{0}, end_{0};
};

// The same with a body for each thread, as makeBody() returns it: body(task, following), where `following` is
// the task that this thread does next, -1 for none, so that it can be prepared in time. Every other thread
// starts from the end: where the first tasks are bound by arithmetic and the last by memory, both are busy
// throughout.
template <typename MakeBody>
inline void forTasksAhead(int64_t tasks, int64_t multiplyAdds, MakeBody&& makeBody) {
  TwoEnds ends(tasks);
  const auto thread = [&](int64_t index) {
    const bool fromEnd = index % 2 == 1;
    auto body = makeBody();
    for (int64_t task = ends.take(fromEnd), following; task >= 0; task = following)
      body(task, following = ends.take(fromEnd));
  };
  if (multiplyAdds < (1 << 16))
    thread(0);
  else
    Pool::instance().parallelFor(std::min<int64_t>(tasks, Pool::instance().threads()), thread);
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

#if defined(__AVX512F__)
const bool kConvertsToBf16 = __builtin_cpu_supports("avx512bf16");

// The first n / kLanes * kLanes sums; returns how many.
[[gnu::target("avx512bf16")]] inline int64_t convertSums(int64_t n, const float* sum, bf16* out) {
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(sum + j))));
  return j;
}
#endif

template <typename Out, typename Acc>
inline void storeSums(int64_t n, const Acc* __restrict sum, Out* __restrict out) {
  int64_t j = 0;
#if defined(__AVX512F__)
  if constexpr (sizeof(Out) == 2)
    if (kConvertsToBf16) j = convertSums(n, sum, out);
#endif
  for (; j < n; ++j) out[j] = static_cast<Out>(sum[j]);
}

// f over n sums in whole vectors; in f64, where f is of scalars, one by one.
template <typename Acc, typename F>
inline void mapSums(int64_t n, Acc* sum, F&& f) {
  if constexpr (sizeof(Acc) == 8) {
    for (int64_t j = 0; j < n; ++j) sum[j] = f(sum[j], j);
  } else {
    for (int64_t j = 0; j < n; j += kLanes) store(sum + j, f(load<VecF>(sum + j), j));
  }
}

// Writes columns [column, column + n) of `rows` sorted rows from `first` on. sums [rows, stride] are used up;
// stride is a number of whole vectors.
template <typename T, typename Out>
inline void finishRows(const Product<T, Out>& p, int64_t first, int64_t rows, int64_t column, int64_t n,
                       Accumulate<T>* sums, int64_t stride) {
  using M = WideWord<Out>;
  const auto at = [&](int64_t r) { return p.out.memoryRow(first + r) * p.width() + column; };
  if (p.bias)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < n; ++j) sums[r * stride + j] += static_cast<Accumulate<T>>(p.bias[column + j]);
  if (p.epilogue == Epilogue::Activation) {
    if (p.preActivation)
      for (int64_t r = 0; r < rows; ++r) storeSums(n, sums + r * stride, p.preActivation + at(r));
    dispatchActivation(p.activation, [&]<UnaryKind Kind>() {
      mapSums(rows * stride, sums, [](auto x, int64_t) { return activation<Kind>(x); });
    });
  } else if (p.epilogue == Epilogue::ActivationGrad) {
    dispatchActivation(p.activation, [&]<UnaryKind Kind>() {
      for (int64_t r = 0; r < rows; ++r) {
        const Out* pre = p.preActivation + at(r);
        mapSums(n, sums + r * stride, [&](auto x, int64_t j) {
          if constexpr (sizeof(Out) == 8)
            return x * activationGrad<Kind>(pre[j]);
          else
            return x * activationGrad<Kind>(lineOf<M>(pre + j, n - j));
        });
      }
    });
  }
  for (int64_t r = 0; r < rows; ++r) storeSums(n, sums + r * stride, p.out.data + at(r));
}

// Fetches what finishRows will touch while the sums are still being formed.
template <typename T, typename Out>
inline void prefetchRows(const Product<T, Out>& p, int64_t first, int64_t rows, int64_t column, int64_t n) {
  constexpr int64_t step = 64 / static_cast<int64_t>(sizeof(Out));
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t offset = p.out.memoryRow(first + r) * p.width() + column;
    for (int64_t j = 0; j < n; j += step) {
      __builtin_prefetch(p.out.data + offset + j, 1);
      if (p.preActivation) __builtin_prefetch(p.preActivation + offset + j);
    }
  }
}

// Instantiated in f64.cc, f32.cc and bf16.cc.
template <typename T, typename Out>
void multiplyGrouped(const Product<T, Out>& product);
template <typename T, typename Out>
void weightGradGrouped(const WeightGrad<T, Out>& grad);

}  // namespace MF_CPU_NAMESPACE
