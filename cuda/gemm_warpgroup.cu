// Products of bf16 on sm_90a. The weights come by bulk tensor copies, and so do rows that lie one after the
// other; gathered rows come by cp.async.
#include "cuda/gemm_warpgroup.cuh"

#include "cuda/gemm.cuh"

namespace mf::cuda {
namespace {

// One thread starts the bulk copies of a stage.
template <typename Job>
struct BulkFeed {
  using Shape = typename Job::Shape;
  static constexpr int kWarps = 1, kArrivals = 1;
  static constexpr bool kCopiesByThreads = false;

  MF_DEVICE void begin(const Job&, const Tile&) {}
  MF_DEVICE void fill(const Job& job, const Tile& tile, const Stages<Shape>& stages, int stage, int parity,
                      int64_t k) {
    if (laneId() != 0) return;
    waitPhase(stages.empty.at(stage), parity ^ 1);
    uint64_t* full = stages.full.at(stage);
    arriveExpecting(full, (Shape::kLeft + Shape::kRight) * 2);
    copyTensor(stages.leftOf(stage).at(0), job.xMap, static_cast<int>(k), static_cast<int>(tile.row), 0,
               full);
    job.copyWeights(tile, stages.rightOf(stage), static_cast<int>(k), full);
  }
  MF_DEVICE void finish() {}
};

// A warpgroup copies gathered rows: a thread has one chunk of every 16th row.
template <typename Job>
struct GatherFeed {
  using Shape = typename Job::Shape;
  static constexpr int kWarps = kWarpgroup / kWarpSize, kArrivals = 1 + kWarpgroup;
  static constexpr bool kCopiesByThreads = true;
  static constexpr int kChunks = Shape::kDepth / 8, kAtOnce = kWarpgroup / kChunks;
  static constexpr int kCopies = Shape::kRows / kAtOnce;

  MF_DEVICE void begin(const Job& job, const Tile& tile) {
    inside_ = 0;
    MF_UNROLL
    for (int i = 0; i < kCopies; ++i) {
      const int64_t row = tile.row + own() / kChunks + i * kAtOnce;
      const bool inside = row < tile.rowEnd;
      inside_ |= static_cast<uint32_t>(inside) << i;
      rows_[i] = job.x.at(inside ? job.x.memoryRow(row) : 0);
    }
  }
  MF_DEVICE void fill(const Job& job, const Tile& tile, const Stages<Shape>& stages, int stage, int parity,
                      int64_t k) {
    waitPhase(stages.empty.at(stage), parity ^ 1);
    uint64_t* full = stages.full.at(stage);
    if (own() == 0) {
      arriveExpecting(full, Shape::kRight * 2);
      job.copyWeights(tile, stages.rightOf(stage), static_cast<int>(k), full);
    }
    const SharedSpan<bf16> target = stages.leftOf(stage);
    const int row = own() / kChunks, chunk = own() % kChunks;
    const int64_t column = k + chunk * 8;
    const int filled = chunkFilled<bf16>(tile.end - column);
    MF_UNROLL
    for (int i = 0; i < kCopies; ++i)
      copyAsync16(target.at((row + i * kAtOnce) * Shape::kDepth + (chunk ^ row % 8) * 8), rows_[i] + column,
                  inside_ >> i & 1 ? filled * 2 : 0);
    arriveAfterCopies(full);
  }
  MF_DEVICE void finish() {
    commitCopies();
    waitCopies<0>();
  }

 private:
  MF_DEVICE static int own() { return threadId() - Shape::kWarps * kWarpSize; }
  const bf16* rows_[kCopies];
  uint32_t inside_;
};

template <typename Out, typename BlockShape, bool kTransposeW, bool kGathered>
struct WarpgroupProduct {
  using Shape = BlockShape;
  using Feed = std::conditional_t<kGathered, GatherFeed<WarpgroupProduct>, BulkFeed<WarpgroupProduct>>;
  static constexpr bool kTransposeLeft = false, kTransposeRight = !kTransposeW, kMayHaveNoDepth = false;
  static constexpr int kFeedRegisters = kGathered ? 56 : 40, kRegisters = kGathered ? 224 : 232;

  TensorMap xMap, wMap;  // xMap: of rows that are not gathered
  ProductTiles<Shape::kRows, Shape::kColumns> tiles;
  PlannedRows<bf16> x;
  ProductFinish<bf16, Out> finish;

  MF_DEVICE bool find(int64_t index, Tile& tile) const { return tiles.find(index, tile); }
  // 64 of the depth from k on, of the tile's columns.
  MF_DEVICE void copyWeights(const Tile& tile, const SharedSpan<bf16>& target, int k, uint64_t* full) const {
    const int column = static_cast<int>(tile.column), expert = static_cast<int>(tile.expert);
    if constexpr (kTransposeW) {
      copyTensor(target.at(0), wMap, k, column, expert, full);
    } else {
      MF_UNROLL
      for (int i = 0; i < Shape::kColumns / 64; ++i)
        copyTensor(target.at(i * kPanel), wMap, column + i * 64, k, expert, full);
    }
  }
};

template <typename Out, typename Shape, bool kTransposeW, bool kGathered>
void multiplyAs(StreamHandle stream, const Product& p) {
  const int64_t in = p.x.width, width = p.out.width;
  const int64_t wRows = kTransposeW ? width : in, wWidth = kTransposeW ? in : width;
  const TensorMap w = makeTensorMap({p.w, wWidth, wRows, p.groups.experts, wWidth, wRows * wWidth},
                                    kTransposeW ? Shape::kColumns : 64);
  TensorMap x = w;
  if (!kGathered)
    x = makeTensorMap({p.x.data, in, p.groups.rows, 1, p.x.stride, p.x.stride * p.groups.rows}, Shape::kRows);
  const WarpgroupProduct<Out, Shape, kTransposeW, kGathered> job{
      x, w, {p.groups, width, in}, PlannedRows<bf16>(p.x), ProductFinish<bf16, Out>(p)};
  launchWarpgroups(stream, job, job.tiles.most());
}

template <typename Out, typename Shape>
void multiplyShaped(StreamHandle stream, const Product& p) {
  if (p.x.map == RowMap::Sorted)
    p.transposeW ? multiplyAs<Out, Shape, true, false>(stream, p)
                 : multiplyAs<Out, Shape, false, false>(stream, p);
  else
    p.transposeW ? multiplyAs<Out, Shape, true, true>(stream, p)
                 : multiplyAs<Out, Shape, false, true>(stream, p);
}

}  // namespace

bool takesWarpgroups(const Product& p) {
  return hasWarpgroupProducts() && p.x.width > 0 && isAligned16<bf16>(p.x.data, p.x.stride) &&
         isAligned16<bf16>(p.w, p.transposeW ? p.x.width : p.out.width);
}

template <typename Out>
void multiplyByWarpgroups(StreamHandle stream, const Product& p) {
  using Wide = ProductTiles<WideWarpgroups::kRows, WideWarpgroups::kColumns>;
  if (p.out.width >= WideWarpgroups::kColumns && Wide{p.groups, p.out.width, 0}.most() >= multiprocessors())
    multiplyShaped<Out, WideWarpgroups>(stream, p);
  else
    multiplyShaped<Out, NarrowWarpgroups>(stream, p);
}

template void multiplyByWarpgroups<bf16>(StreamHandle, const Product&);
template void multiplyByWarpgroups<float>(StreamHandle, const Product&);

}  // namespace mf::cuda
