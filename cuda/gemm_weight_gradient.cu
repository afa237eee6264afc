// Gradients of weights on tensor cores: both operands' rows are the depth. Where the result has too few tiles
// for a GPU, an expert's rows are split into parts by shape alone, and the parts' sums are added in order.
#include "cuda/gemm.cuh"
#include "cuda/gemm_pipeline.cuh"
#include "cuda/gemm_warpgroup.cuh"
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

// On sm_90a: a warpgroup copies 64 rows of both operands by cp.async, since rows beyond the expert's must be
// zeros; a thread has one chunk of every 16th row in each panel. Where rows lie is looked up one stage ahead.
template <typename Job>
struct RowsFeed {
  using Shape = typename Job::Shape;
  static constexpr int kWarps = kWarpgroup / kWarpSize, kArrivals = kWarpgroup;
  static constexpr bool kCopiesByThreads = true;
  static constexpr int kAtOnce = 16, kCopies = Shape::kDepth / kAtOnce;

  MF_DEVICE void begin(const Job& job, const Tile& tile) { lookAhead(job, tile, tile.begin); }
  MF_DEVICE void fill(const Job& job, const Tile& tile, const Stages<Shape>& stages, int stage, int parity,
                      int64_t k) {
    waitPhase(stages.empty.at(stage), parity ^ 1);
    copy<Shape::kRows>(stages.leftOf(stage), job.a, a_, tile.row, tile.rowEnd);
    copy<Shape::kColumns>(stages.rightOf(stage), job.b, b_, tile.column, tile.columnEnd);
    arriveAfterCopies(stages.full.at(stage));
    lookAhead(job, tile, k + Shape::kDepth);
  }
  MF_DEVICE void finish() {
    commitCopies();
    waitCopies<0>();
  }

 private:
  MF_DEVICE static int own() { return threadId() - Shape::kWarps * kWarpSize; }
  MF_DEVICE void lookAhead(const Job& job, const Tile& tile, int64_t k) {
    MF_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      const int64_t row = k + own() / 8 + i * kAtOnce;
      a_[i] = row < tile.end ? job.a.memoryRow(row) : -1;
      b_[i] = row < tile.end ? job.b.memoryRow(row) : -1;
    }
  }
  template <int kOuter>
  MF_DEVICE static void copy(const SharedSpan<bf16>& stage, const PlannedRows<bf16>& from,
                             const int (&rows)[kCopies], int64_t first, int64_t end) {
    const int row = own() / 8, chunk = own() % 8;
    MF_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      const bool inside = rows[i] >= 0;
      const bf16* source = from.at(inside ? rows[i] : 0);
      MF_UNROLL
      for (int panel = 0; panel < kOuter / 64; ++panel) {
        const int64_t column = first + panel * 64 + chunk * 8;
        bf16* target = stage.at(panel * kPanel + (row + i * kAtOnce) * 64 + (chunk ^ row % 8) * 8);
        copyAsync16(target, source + column, inside ? chunkFilled<bf16>(end - column) * 2 : 0);
      }
    }
  }
  int a_[kCopies], b_[kCopies];  // where rows lie, -1 beyond the expert's
};

template <typename Out, typename BlockShape>
struct WarpgroupGradient {
  using Shape = BlockShape;
  using Feed = RowsFeed<WarpgroupGradient>;
  static constexpr bool kTransposeLeft = true, kTransposeRight = true, kMayHaveNoDepth = true;
  static constexpr int kFeedRegisters = 96, kRegisters = 208;

  GradientTiles<Shape::kRows, Shape::kColumns> tiles;
  PlannedRows<bf16> a, b;
  GradientFinish<Out> finish;

  MF_DEVICE bool find(int64_t index, Tile& tile) const {
    return tiles.template find<Shape::kDepth>(index, tile);
  }
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

template <typename Job, typename T, typename Out>
Job gradientJob(const WeightGradient& g, Out* dw, int64_t parts) {
  const int64_t height = g.a.width, width = g.b.width;
  return {{g.groups, height, width, parts},
          PlannedRows<T>(g.a),
          PlannedRows<T>(g.b),
          {dw, height, width, g.accumulate, isAligned16<Out>(dw, width)}};
}

template <typename T, typename Out, typename Shape>
void gradientTiles(StreamHandle stream, const WeightGradient& g, Out* dw, int64_t parts) {
  const auto job = gradientJob<GradientJob<T, Out, Shape>, T>(g, dw, parts);
  launchTiles(stream, job, job.tiles.count());
}

template <typename Out, typename Shape>
void gradientByWarpgroups(StreamHandle stream, const WeightGradient& g, Out* dw, int64_t parts) {
  const auto job = gradientJob<WarpgroupGradient<Out, Shape>, bf16>(g, dw, parts);
  launchWarpgroups(stream, job, job.tiles.count());
}

template <typename T, typename Out>
void gradientShaped(StreamHandle stream, const WeightGradient& g, Out* dw, int64_t parts) {
  if constexpr (std::is_same_v<T, float>) {
    gradientTiles<T, Out, FloatShape>(stream, g, dw, parts);
  } else {
    using Wide = GradientTiles<WideShape::kRows, WideShape::kColumns>;
    const bool wide = g.b.width >= WideShape::kColumns &&
                      Wide{g.groups, g.a.width, g.b.width, parts}.count() >= multiprocessors();
    if (hasWarpgroupProducts() && isAligned16<bf16>(g.a.data, g.a.stride) &&
        isAligned16<bf16>(g.b.data, g.b.stride))
      wide ? gradientByWarpgroups<Out, WideWarpgroups>(stream, g, dw, parts)
           : gradientByWarpgroups<Out, NarrowWarpgroups>(stream, g, dw, parts);
    else
      wide ? gradientTiles<T, Out, WideShape>(stream, g, dw, parts)
           : gradientTiles<T, Out, NarrowShape>(stream, g, dw, parts);
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
