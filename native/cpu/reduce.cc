#include <cstring>

#include "cpu/cpu_backend.h"
#include "cpu/lanes.h"
#include "cpu/parallel.h"

namespace MF_CPU_NAMESPACE {
namespace {

// `inner` is cut into chunks of fixed length; a chunk is summed in order, the chunks pairwise, so the error
// of a long f32 sum grows with the logarithm of its length.
constexpr int64_t kRowChunk = 1024;   // elements, tail == 1: 32 per lane
constexpr int64_t kColumnChunk = 64;  // rows, tail > 1
constexpr int64_t kTailBlock = 512;   // columns done at a time

constexpr int64_t ceilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

template <typename T, typename A>
void sumColumns(const T* in, int64_t rows, int64_t stride, int64_t columns, A* total) {
  for (int64_t c = 0; c < columns; ++c) total[c] = A(0);
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const T *r0 = in + r * stride, *r1 = r0 + stride, *r2 = r1 + stride, *r3 = r2 + stride;
    for (int64_t c = 0; c < columns; ++c)
      total[c] +=
          (static_cast<A>(r0[c]) + static_cast<A>(r1[c])) + (static_cast<A>(r2[c]) + static_cast<A>(r3[c]));
  }
  for (; r < rows; ++r) {
    const T* row = in + r * stride;
    for (int64_t c = 0; c < columns; ++c) total[c] += static_cast<A>(row[c]);
  }
}

// partial [chunks, columns] at distance `stride`: leaves the sum over chunks in the first row.
template <typename A>
void sumPairwise(A* partial, int64_t chunks, int64_t stride, int64_t columns) {
  for (int64_t step = 1; step < chunks; step *= 2)
    for (int64_t i = 0; i + step < chunks; i += 2 * step) {
      A* to = partial + i * stride;
      const A* from = partial + (i + step) * stride;
      for (int64_t c = 0; c < columns; ++c) to[c] += from[c];
    }
}

// A unit is one chunk of one block of columns of one outer index; its sum goes to partial [outer, chunks,
// tail].
template <typename T>
void sumKernel(const SumArgs& args) {
  using A = Accumulate<T>;
  const T* in = args.in.as<T>();
  T* out = args.out.as<T>();
  const int64_t outer = args.outer, inner = args.inner, tail = args.tail;
  const int64_t chunk = tail == 1 ? kRowChunk : kColumnChunk;
  const int64_t chunks = inner > chunk ? ceilDiv(inner, chunk) : 1, blocks = ceilDiv(tail, kTailBlock);
  A* partial = chunks == 1 ? nullptr : static_cast<A*>(threadScratch(outer * chunks * tail * sizeof(A)));

  const int64_t unitRows = inner < chunk ? inner : chunk, unitColumns = tail < kTailBlock ? tail : kTailBlock;
  forRows(outer * chunks * blocks, unitRows * unitColumns, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t column = unit % blocks * kTailBlock, index = unit / blocks;  // index: of [outer, chunks]
      const int64_t first = index % chunks * chunk, left = inner - first;
      const int64_t rows = left < chunk ? left : chunk;
      const int64_t columns = tail - column < kTailBlock ? tail - column : kTailBlock;
      const T* from = in + (index / chunks * inner + first) * tail + column;
      A total[kTailBlock];
      if (tail == 1)
        total[0] = laneSum<A>(rows, [&](int64_t i) { return static_cast<A>(from[i]); });
      else
        sumColumns(from, rows, tail, columns, total);
      if (partial)
        for (int64_t c = 0; c < columns; ++c) partial[index * tail + column + c] = total[c];
      else
        for (int64_t c = 0; c < columns; ++c) out[index * tail + column + c] = static_cast<T>(total[c]);
    }
  });
  if (!partial) return;
  forRows(outer * blocks, chunks * unitColumns, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t column = unit % blocks * kTailBlock, o = unit / blocks;
      const int64_t columns = tail - column < kTailBlock ? tail - column : kTailBlock;
      A* total = partial + o * chunks * tail + column;
      sumPairwise(total, chunks, tail, columns);
      for (int64_t c = 0; c < columns; ++c) out[o * tail + column + c] = static_cast<T>(total[c]);
    }
  });
}

}  // namespace

void CpuBackend::sum(const SumArgs& args) {
  dispatchFloat(args.in.dtype, [&]<typename T>() { sumKernel<T>(args); });
}

void CpuBackend::expand(const ExpandArgs& args) {
  const int64_t inner = args.inner, tail = args.tail;
  dispatchFloat(args.in.dtype, [&]<typename T>() {
    const T* in = args.in.as<T>();
    T* out = args.out.as<T>();
    if (tail == 1)
      return forElements(args.outer * inner, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end;) {
          const int64_t o = i / inner, stop = (o + 1) * inner < end ? (o + 1) * inner : end;
          for (const T value = in[o]; i < stop; ++i) out[i] = value;
        }
      });
    forRows(args.outer * inner, tail, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        std::memcpy(out + r * tail, in + r / inner * tail, static_cast<size_t>(tail) * sizeof(T));
    });
  });
}

void CpuBackend::mulRows(const MulRowsArgs& args) {
  const int64_t rows = args.s.numel(), width = rows == 0 ? 0 : args.x.numel() / rows;
  dispatchFloat(args.x.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const T* x = args.x.as<T>();
    const A* s = args.s.as<A>();
    T* out = args.out.as<T>();
    forRows(rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const A factor = s[r];
        for (int64_t i = r * width; i < (r + 1) * width; ++i)
          out[i] = static_cast<T>(static_cast<A>(x[i]) * factor);
      }
    });
  });
}

void CpuBackend::rowDot(const RowDotArgs& args) {
  const int64_t rows = args.out.numel(), width = rows == 0 ? 0 : args.a.numel() / rows;
  dispatchFloat(args.a.dtype, [&]<typename T>() {
    using A = Accumulate<T>;
    const T *a = args.a.as<T>(), *b = args.b.as<T>();
    A* out = args.out.as<A>();
    forRows(rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const T *left = a + r * width, *right = b + r * width;
        out[r] =
            laneSum<A>(width, [&](int64_t i) { return static_cast<A>(left[i]) * static_cast<A>(right[i]); });
      }
    });
  });
}

}  // namespace MF_CPU_NAMESPACE
