// Products on tensor cores. Few rows are for gemm_few_rows.cu, bf16 on sm_90a for gemm_warpgroup.cu, f64 for
// gemm_f64.cu, gradients of weights for gemm_weight_gradient.cu.
#include "cuda/gemm.cuh"

#include "cuda/gemm_pipeline.cuh"

namespace mf::cuda {
namespace {

template <typename T, typename Out, typename BlockShape, bool kTransposeW>
struct ProductJob {
  using Shape = BlockShape;
  using Element = T;
  static constexpr bool kLeftInner = true, kRightInner = kTransposeW;

  ProductTiles<Shape::kRows, Shape::kColumns> tiles;
  PlannedRows<T> x;
  ExpertWeights<T> w;
  ProductFinish<T, Out> finish;

  MF_DEVICE bool find(int64_t index, Tile& tile) const { return tiles.find(index, tile); }
  MF_DEVICE const PlannedRows<T>& left(const Tile&) const { return x; }
  MF_DEVICE ExpertWeights<T> right(const Tile& tile) const { return w.select(tile.expert); }
  MF_DEVICE int64_t leftEnd(const Tile& tile) const { return tile.rowEnd; }
  MF_DEVICE int64_t rightEnd(const Tile& tile) const { return tile.columnEnd; }
};

template <typename T, typename Out, typename Shape, bool kTransposeW>
void multiplyTiles(StreamHandle stream, const Product& p) {
  const int64_t in = p.x.width, width = p.out.width;
  const ExpertWeights<T> w(p.w, kTransposeW ? width : in, kTransposeW ? in : width);
  const ProductJob<T, Out, Shape, kTransposeW> job{
      {p.groups, width, in}, PlannedRows<T>(p.x), w, ProductFinish<T, Out>(p)};
  launchTiles(stream, job, job.tiles.most());
}

template <typename T, typename Out, typename Shape>
void multiplyShaped(StreamHandle stream, const Product& p) {
  p.transposeW ? multiplyTiles<T, Out, Shape, true>(stream, p)
               : multiplyTiles<T, Out, Shape, false>(stream, p);
}

}  // namespace

template <typename T, typename Out>
void multiply(StreamHandle stream, const Product& p) {
  if (p.groups.rows == 0 || p.out.width == 0) return;
  if (hasFewRows(p)) return multiplyFewRows<T, Out>(stream, p);
  if constexpr (std::is_same_v<T, float>) {
    multiplyShaped<T, Out, FloatShape>(stream, p);
  } else {
    if (takesWarpgroups(p)) return multiplyByWarpgroups<Out>(stream, p);
    using Wide = ProductTiles<WideShape::kRows, WideShape::kColumns>;
    if (p.out.width >= WideShape::kColumns && Wide{p.groups, p.out.width, 0}.most() >= multiprocessors())
      multiplyShaped<T, Out, WideShape>(stream, p);
    else
      multiplyShaped<T, Out, NarrowShape>(stream, p);
  }
}

template void multiply<float, float>(StreamHandle, const Product&);
template void multiply<bf16, bf16>(StreamHandle, const Product&);
template void multiply<bf16, float>(StreamHandle, const Product&);

}  // namespace mf::cuda
