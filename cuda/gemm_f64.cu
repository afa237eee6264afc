// Products in f64, for checks of gradients: a block per tile of [64, 64], plain arithmetic.
#include "cuda/gemm_epilogue.cuh"
#include "cuda/tile.cuh"

namespace mf::cuda {
namespace {

// What tile.cuh takes for a matrix: the rows of a plan or of one expert's weights, up to `end`.
template <typename Matrix>
struct RowsUpTo {
  const Matrix& matrix;
  int64_t end;
  int64_t width = matrix.width;
  bool aligned = matrix.aligned;
  MF_DEVICE const double* anywhere() const { return matrix.at(0); }
  MF_DEVICE const double* row(int64_t i) const { return i < end ? matrix.at(matrix.memoryRow(i)) : nullptr; }
};

using Finish = ElementFinish<double, double>;

template <bool kTransposeW>
MF_KERNEL void productKernel(PlannedRows<double> x, ExpertWeights<double> w, ProductTiles<kTile, kTile> tiles,
                             Finish finish) {
  MF_SHARED(double, a, kStagedElements<double>);
  MF_SHARED(double, b, kStagedElements<double>);
  Tile tile;
  if (!tiles.find(blockId(), tile)) return;
  const ExpertWeights<double> own = w.select(tile.expert);
  BlockProduct<double> product;
  product.clear();
  multiplyTiles<double, true, kTransposeW>(
      product, a, b, RowsUpTo<PlannedRows<double>>{x, tile.rowEnd}, tile.row,
      RowsUpTo<ExpertWeights<double>>{own, kTransposeW ? tile.columnEnd : tile.end}, tile.column, 0,
      tile.end);
  product.forEach([&](int r, int c, double value) {
    if (tile.row + r < tile.rowEnd && tile.column + c < tile.columnEnd)
      finish(tile.row + r, tile.column + c, value);
  });
}

MF_KERNEL void gradientKernel(PlannedRows<double> left, PlannedRows<double> right, Groups groups, double* dw,
                              bool accumulate) {
  MF_SHARED(double, a, kStagedElements<double>);
  MF_SHARED(double, b, kStagedElements<double>);
  const int64_t expert = blockIdZ(), height = left.width, width = right.width;
  const int64_t row = int64_t{blockIdY()} * kTile, column = int64_t{blockId()} * kTile;
  const int64_t begin = groups.offsets ? groups.offsets[expert] : 0;
  const int64_t end = groups.offsets ? groups.offsets[expert + 1] : groups.rows;
  BlockProduct<double> product;
  product.clear();
  multiplyTiles<double, false, false>(product, a, b, RowsUpTo<PlannedRows<double>>{left, end}, row,
                                      RowsUpTo<PlannedRows<double>>{right, end}, column, begin, end);
  product.forEach([&](int r, int c, double value) {
    if (row + r >= height || column + c >= width) return;
    double& target = dw[(expert * height + row + r) * width + column + c];
    target = accumulate ? target + value : value;
  });
}

}  // namespace

template <>
void multiply<double, double>(StreamHandle stream, const Product& p) {
  const int64_t in = p.x.width, width = p.out.width;
  const ProductTiles<kTile, kTile> tiles{p.groups, width, in};
  const ExpertWeights<double> w(p.w, p.transposeW ? width : in, p.transposeW ? in : width);
  launch(p.transposeW ? productKernel<true> : productKernel<false>, {p.groups.rows == 0 ? 0 : tiles.most()},
         kProductThreads, 0, stream, PlannedRows<double>(p.x), w, tiles, Finish(p));
}

template <>
void weightGradient<double, double>(StreamHandle stream, const WeightGradient& g) {
  launch(gradientKernel, {ceilDiv(g.b.width, kTile), ceilDiv(g.a.width, kTile), g.groups.experts},
         kProductThreads, 0, stream, PlannedRows<double>(g.a), PlannedRows<double>(g.b), g.groups,
         static_cast<double*>(g.dw), g.accumulate);
}

}  // namespace mf::cuda
