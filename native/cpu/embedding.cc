#include <cstring>
#include <string>

#include "core/error.h"
#include "cpu/cpu_backend.h"
#include "cpu/parallel.h"

namespace MF_CPU_NAMESPACE {
namespace {

constexpr int64_t kColumns = 256;  // columns of a row of dweight summed at a time

template <typename F>
void dispatchIds(DType dtype, F&& f) {
  if (dtype == DType::i64) return f.template operator()<int64_t>();
  f.template operator()<int32_t>();
}

template <typename I>
void checkIds(const I* ids, int64_t count, int64_t V) {
  for (int64_t n = 0; n < count; ++n)
    if (ids[n] < 0 || ids[n] >= V)
      throw Error(ErrorKind::Value, "id " + std::to_string(ids[n]) + " at position " + std::to_string(n) +
                                        " is outside the vocabulary, expected 0 to " + std::to_string(V - 1));
}

// Tokens by id: those of id v are order[offsets[v]] to order[offsets[v + 1] - 1], rising.
struct TokensById {
  int64_t *offsets, *order;
};

template <typename I>
TokensById sortByCounting(const I* ids, int64_t count, int64_t V) {
  int64_t* offsets = static_cast<int64_t*>(threadScratch((V + 2 + count) * sizeof(int64_t)));
  int64_t* order = offsets + V + 2;
  std::memset(offsets, 0, (V + 2) * sizeof(int64_t));
  for (int64_t n = 0; n < count; ++n) ++offsets[ids[n] + 2];
  for (int64_t v = 0; v < V; ++v) offsets[v + 2] += offsets[v + 1];
  // offsets[v + 1] is where the next token of v goes; at the end it is where those of v + 1 begin.
  for (int64_t n = 0; n < count; ++n) order[offsets[ids[n] + 1]++] = n;
  return {offsets, order};
}

template <typename T>
void sumTokens(const T* dy, const int64_t* tokens, int64_t count, int64_t D, T* out) {
  using A = Accumulate<T>;
  for (int64_t column = 0; column < D; column += kColumns) {
    const int64_t columns = D - column < kColumns ? D - column : kColumns;
    A total[kColumns] = {};
    for (int64_t t = 0; t < count; ++t) {
      const T* row = dy + tokens[t] * D + column;
      for (int64_t c = 0; c < columns; ++c) total[c] += static_cast<A>(row[c]);
    }
    for (int64_t c = 0; c < columns; ++c) out[column + c] = static_cast<T>(total[c]);
  }
}

}  // namespace

void CpuBackend::embedding(const EmbeddingArgs& args) {
  const int64_t V = args.weight.size(0), D = args.weight.size(1), count = args.ids.numel();
  const size_t rowBytes = static_cast<size_t>(D) * itemSize(args.weight.dtype);
  const char* weight = args.weight.as<char>();
  char* out = args.out.as<char>();
  dispatchIds(args.ids.dtype, [&]<typename I>() {
    const I* ids = args.ids.as<I>();
    checkIds(ids, count, V);
    forRows(count, D, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        std::memcpy(out + n * rowBytes, weight + ids[n] * rowBytes, rowBytes);
    });
  });
}

void CpuBackend::embeddingBackward(const EmbeddingBackwardArgs& args) {
  const int64_t V = args.dweight.size(0), D = args.dweight.size(1), count = args.ids.numel();
  TokensById tokens{};
  dispatchIds(args.ids.dtype, [&]<typename I>() {
    checkIds(args.ids.as<I>(), count, V);
    tokens = sortByCounting(args.ids.as<I>(), count, V);
  });
  dispatchFloat(args.dy.dtype, [&]<typename T>() {
    const T* dy = args.dy.as<T>();
    T* dweight = args.dweight.as<T>();
    forRows(V, D, [&](int64_t begin, int64_t end) {
      for (int64_t v = begin; v < end; ++v) {
        const int64_t first = tokens.offsets[v];
        sumTokens(dy, tokens.order + first, tokens.offsets[v + 1] - first, D, dweight + v * D);
      }
    });
  });
}

}  // namespace MF_CPU_NAMESPACE
