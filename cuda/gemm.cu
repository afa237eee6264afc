#include "cuda/gemm.cuh"

#include "cuda/plan.cuh"
#include "cuda/tile.cuh"
#include "cuda/unary.cuh"

namespace mf::cuda {
namespace {

// Rows as a plan counts them, up to `end`.
template <typename T>
struct PlannedRows {
  RowsOf rows;
  int64_t end;
  int64_t width;
  bool aligned;

  PlannedRows(const RowsOf& from, int64_t end_)
      : rows(from), end(end_), width(from.width), aligned(isAligned<T>(from.data, from.width)) {}
  MF_DEVICE const T* anywhere() const { return static_cast<const T*>(rows.data); }
  MF_DEVICE const T* row(int64_t s) const {
    return s < end ? anywhere() + memoryRow(rows, s) * width : nullptr;
  }
};

// The expert and the first row of tile `index`, tiles being counted expert by expert; false beyond the last
// one.
struct GroupTile {
  int64_t expert, row, rowEnd;
  MF_DEVICE bool find(const Groups& groups, int64_t index) {
    if (!groups.offsets) {
      expert = 0;
      row = index * kTile;
      rowEnd = groups.rows;
      return row < rowEnd;
    }
    for (expert = 0; expert < groups.experts; ++expert) {
      const int64_t first = groups.offsets[expert], last = groups.offsets[expert + 1];
      const int64_t tiles = (last - first + kTile - 1) / kTile;
      if (index < tiles) {
        row = first + index * kTile;
        rowEnd = last;
        return true;
      }
      index -= tiles;
    }
    return false;
  }
};

template <typename T, typename Out>
struct Finish {
  RowsOf out;
  const T* bias;
  Epilogue epilogue;
  UnaryKind activation;
  Out* preActivation;

  template <typename A>
  MF_DEVICE void operator()(int64_t s, int64_t column, A value) const {
    const int64_t at = memoryRow(out, s) * out.width + column;
    if (bias) value += static_cast<A>(bias[column]);
    if (epilogue == Epilogue::Activation) {
      if (preActivation) preActivation[at] = static_cast<Out>(value);
      value = unaryValue(activation, value);
    } else if (epilogue == Epilogue::ActivationGrad) {
      value *= unaryGrad(activation, static_cast<A>(preActivation[at]));
    }
    const_cast<Out*>(static_cast<const Out*>(out.data))[at] = static_cast<Out>(value);
  }
};

template <typename T, typename Out, bool kRightInner>
MF_KERNEL void productKernel(PlannedRows<T> x, PlannedRows<T> w, Groups groups, int64_t expertSize,
                             int64_t in, int64_t outWidth, Finish<T, Out> finish) {
  MF_SHARED(T, a, kStagedElements<T>);
  MF_SHARED(T, b, kStagedElements<T>);
  GroupTile tile;
  if (!tile.find(groups, blockIdY())) return;
  const int64_t column = int64_t{blockId()} * kTile;
  x.end = tile.rowEnd;
  w.rows.data = w.anywhere() + tile.expert * expertSize;
  BlockProduct<T> product;
  product.clear();
  multiplyTiles<T, true, kRightInner>(product, a, b, x, tile.row, w, column, 0, in);
  product.forEach([&](int r, int c, Accumulate<T> value) {
    if (tile.row + r < tile.rowEnd && column + c < outWidth) finish(tile.row + r, column + c, value);
  });
}

template <typename T, typename Out>
MF_KERNEL void weightGradientKernel(PlannedRows<T> left, PlannedRows<T> right, Groups groups, Out* dw,
                                    bool accumulate) {
  MF_SHARED(T, a, kStagedElements<T>);
  MF_SHARED(T, b, kStagedElements<T>);
  const int64_t expert = blockIdZ(), height = left.width, width = right.width;
  const int64_t row = int64_t{blockIdY()} * kTile, column = int64_t{blockId()} * kTile;
  const int64_t begin = groups.offsets ? groups.offsets[expert] : 0;
  const int64_t end = groups.offsets ? groups.offsets[expert + 1] : groups.rows;
  left.end = right.end = end;
  BlockProduct<T> product;
  product.clear();
  multiplyTiles<T, false, false>(product, a, b, left, row, right, column, begin, end);
  product.forEach([&](int r, int c, Accumulate<T> value) {
    if (row + r >= height || column + c >= width) return;
    Out& target = dw[(expert * height + row + r) * width + column + c];
    target = static_cast<Out>(accumulate ? static_cast<Accumulate<T>>(target) + value : value);
  });
}

}  // namespace

template <typename T, typename Out>
void multiply(StreamHandle stream, const Product& p) {
  const int64_t in = p.x.width, width = p.out.width, expertSize = in * width;
  if (p.groups.rows == 0 || width == 0) return;
  PlannedRows<T> w({p.w, p.transposeW ? in : width, RowMap::Sorted, nullptr, 1}, p.transposeW ? width : in);
  w.aligned = w.aligned && isAligned<T>(p.w, expertSize);
  const PlannedRows<T> x(p.x, p.groups.rows);
  // At most one tile of an expert is not full.
  const int64_t tiles = ceilDiv(p.groups.rows, kTile) + (p.groups.offsets ? p.groups.experts : 0);
  const Finish<T, Out> finish{p.out, static_cast<const T*>(p.bias), p.epilogue, p.activation,
                              static_cast<Out*>(p.preActivation)};
  const auto kernel = p.transposeW ? productKernel<T, Out, true> : productKernel<T, Out, false>;
  launch(kernel, {ceilDiv(width, kTile), tiles}, kProductThreads, 0, stream, x, w, p.groups, expertSize, in,
         width, finish);
}

template <typename T, typename Out>
void weightGradient(StreamHandle stream, const WeightGradient& g) {
  launch(weightGradientKernel<T, Out>,
         {ceilDiv(g.b.width, kTile), ceilDiv(g.a.width, kTile), g.groups.experts}, kProductThreads, 0, stream,
         PlannedRows<T>(g.a, g.groups.rows), PlannedRows<T>(g.b, g.groups.rows), g.groups,
         static_cast<Out*>(g.dw), g.accumulate);
}

template void multiply<double, double>(StreamHandle, const Product&);
template void multiply<float, float>(StreamHandle, const Product&);
template void multiply<bf16, bf16>(StreamHandle, const Product&);
template void multiply<bf16, float>(StreamHandle, const Product&);
template void weightGradient<double, double>(StreamHandle, const WeightGradient&);
template void weightGradient<float, float>(StreamHandle, const WeightGradient&);
template void weightGradient<bf16, bf16>(StreamHandle, const WeightGradient&);
template void weightGradient<bf16, float>(StreamHandle, const WeightGradient&);

}  // namespace mf::cuda
