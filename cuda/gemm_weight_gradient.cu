// Gradients of weights on tensor cores: both operands' rows are the depth. Where the result has too few tiles
// for a GPU, an expert's rows are split into parts by shape alone, and the parts' sums are added in order.
#include "cuda/gemm.cuh"
#include "cuda/gemm_pipeline.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {
namespace {

constexpr int64_t kWantedTiles = 128, kMostParts = 64;
constexpr int64_t kPartRows = 512;  // a part has about so many at least

// The tiles of dw [experts, height, width], those of one part of an expert's rows after the other. A tile's
// `expert` counts the slabs [parts, experts] of the result.
template <int kRows, int kColumns>
struct GradientTiles {
  Groups groups;
  int64_t height, width, parts;

  int64_t count() const { return groups.experts * parts * ceilDiv(height, kRows) * ceilDiv(width, kColumns); }

  template <int kStep>
  MF_DEVICE bool find(int64_t index, Tile& tile) const {
    const int64_t rowTiles = ceilDiv(height, kRows), columnTiles = ceilDiv(width, kColumns);
    const int64_t expert = index / (rowTiles * columnTiles * parts);
    if (expert >= groups.experts) return false;
    index -= expert * rowTiles * columnTiles * parts;
    const int64_t part = index / (rowTiles * columnTiles);
    const int64_t first = groups.offsets ? groups.offsets[expert] : 0;
    const int64_t last = groups.offsets ? groups.offsets[expert + 1] : groups.rows;
    const int64_t length = ceilDiv(ceilDiv(last - first, parts), kStep) * kStep;
    const int64_t begin = minimum(first + part * length, last);
    tile = {part * groups.experts + expert, 0, height, 0, width, begin, minimum(begin + length, last)};
    placeTile<kRows, kColumns>(tile, index - part * rowTiles * columnTiles, rowTiles, columnTiles);
    return true;
  }
};

template <typename T, typename Out, typename BlockShape>
struct GradientJob {
  using Shape = BlockShape;
  using Element = T;
  static constexpr bool kLeftInner = false, kRightInner = false;

  GradientTiles<Shape::kRows, Shape::kColumns> tiles;
  PlannedRows<T> a, b;
  GradientFinish<Out> finish;

  MF_DEVICE bool find(int64_t index, Tile& tile) const {
    return tiles.template find<kStageDepth<T>>(index, tile);
  }
  MF_DEVICE const PlannedRows<T>& left(const Tile&) const { return a; }
  MF_DEVICE const PlannedRows<T>& right(const Tile&) const { return b; }
  MF_DEVICE int64_t leftEnd(const Tile& tile) const { return tile.rowEnd; }
  MF_DEVICE int64_t rightEnd(const Tile& tile) const { return tile.columnEnd; }
};

template <typename Out>
struct AddParts {
  const float* parts;
  int64_t count, size;
  Out* dw;
  MF_DEVICE void operator()(int64_t i) const {
    float sum = parts[i];
    for (int64_t part = 1; part < count; ++part) sum += parts[part * size + i];
    dw[i] = static_cast<Out>(sum);
  }
};

template <typename T, typename Out, typename Shape>
void gradientTiles(StreamHandle stream, const WeightGradient& g, Out* dw, int64_t parts) {
  const int64_t height = g.a.width, width = g.b.width;
  const GradientJob<T, Out, Shape> job{{g.groups, height, width, parts},
                                       PlannedRows<T>(g.a),
                                       PlannedRows<T>(g.b),
                                       {dw, height, width, g.accumulate, isAligned16<Out>(dw, width)}};
  launchTiles(stream, job, job.tiles.count());
}

template <typename T, typename Out>
void gradientShaped(StreamHandle stream, const WeightGradient& g, Out* dw, int64_t parts) {
  if constexpr (std::is_same_v<T, float>) {
    gradientTiles<T, Out, FloatShape>(stream, g, dw, parts);
  } else {
    using Wide = GradientTiles<WideShape::kRows, WideShape::kColumns>;
    if (g.b.width >= WideShape::kColumns &&
        Wide{g.groups, g.a.width, g.b.width, parts}.count() >= multiprocessors())
      gradientTiles<T, Out, WideShape>(stream, g, dw, parts);
    else
      gradientTiles<T, Out, NarrowShape>(stream, g, dw, parts);
  }
}

}  // namespace

int64_t gradientParts(const Groups& groups, int64_t height, int64_t width) {
  const int64_t tiles =
      groups.experts * ceilDiv(height, NarrowShape::kRows) * ceilDiv(width, NarrowShape::kColumns);
  if (tiles == 0 || tiles * 2 > kWantedTiles) return 1;
  const int64_t byRows = ceilDiv(groups.rows, groups.experts * kPartRows);
  return maximum<int64_t>(1, minimum(minimum(kWantedTiles / tiles, byRows), kMostParts));
}

template <typename T, typename Out>
void weightGradient(StreamHandle stream, const WeightGradient& g) {
  Out* dw = static_cast<Out*>(g.dw);
  const int64_t parts = g.sums ? gradientParts(g.groups, g.a.width, g.b.width) : 1;
  if (parts == 1) return gradientShaped<T, Out>(stream, g, dw, 1);
  const int64_t size = g.groups.experts * g.a.width * g.b.width;
  gradientShaped<T, float>(stream, g, g.sums, parts);
  forElements(stream, size, AddParts<Out>{g.sums, parts, size, dw});
}

template void weightGradient<float, float>(StreamHandle, const WeightGradient&);
template void weightGradient<bf16, bf16>(StreamHandle, const WeightGradient&);
template void weightGradient<bf16, float>(StreamHandle, const WeightGradient&);

}  // namespace mf::cuda
