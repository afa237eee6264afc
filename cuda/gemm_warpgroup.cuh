#pragma once
// Persistent blocks for sm_90a: a warpgroup brings stages of both operands, two others multiply them by
// wgmma. A stage has a barrier that tells when it is full, and one that tells when it may be filled again;
// stages run ahead across the ends of tiles.
//
// A Job is trivially copyable and has
//   Shape (a WarpgroupShape), kTransposeLeft, kTransposeRight: whether an operand's rows are the depth
//   find(index, tile)   false beyond the last tile
//   kMayHaveNoDepth     whether a tile may be a sum of nothing
//   Feed                what a thread of the first warpgroup does: begin(), fill(), finish()
//   finish              what writes the sums
#include "cuda/gemm_epilogue.cuh"

namespace mf::cuda {

constexpr int kWarpgroup = 128;

// Tiles of [128, kColumns]: two warpgroups of [64, kColumns]. A stage has 64 of the depth.
template <int kColumns_, int kStages_>
struct WarpgroupShape {
  static constexpr int kRows = 128, kColumns = kColumns_, kDepth = 64, kStages = kStages_;
  static constexpr int kMultipliers = 2, kWarps = kMultipliers * kWarpgroup / kWarpSize;
  static constexpr int kThreads = (kMultipliers + 1) * kWarpgroup;
  static constexpr int kLeft = kRows * kDepth, kRight = kColumns * kDepth;  // elements of a stage
  static constexpr int kWarpHeight = 16, kWarpWidth = kColumns;
  static constexpr int kFragmentRows = 1, kFragmentColumns = kColumns / 8;
  MF_DEVICE static int row() { return warpId() * kWarpHeight; }
  MF_DEVICE static int column() { return 0; }
};
using WideWarpgroups = WarpgroupShape<256, 4>;
using NarrowWarpgroups = WarpgroupShape<128, 6>;

// An operand of wgmma in a stage, 128 bytes swizzled. K-major: rows of 64 of the depth. MN-major: panels of
// 64 rows or columns, each with 64 rows of the depth.
constexpr int kPanel = 64 * 64, kPanelBytes = kPanel * 2;
constexpr int kPatternBytes = 1024;  // eight rows of 128 bytes

template <bool kTransposed>
struct StageMatrix {
  static constexpr int kStep = 16;
  // "Matrix Descriptor Format": sixteenths of address, of the distance of panels and of that of patterns;
  // 128-byte swizzling.
  MF_DEVICE static uint64_t descriptor(const bf16* first) {
    return sharedAddress(first) / 16 | static_cast<uint64_t>(kTransposed ? kPanelBytes / 16 : 1) << 16 |
           static_cast<uint64_t>(kPatternBytes / 16) << 32 | uint64_t{1} << 62;
  }
  // From one step of 16 of the depth to the next.
  static constexpr uint64_t kNext = (kTransposed ? kStep * 128 : kStep * 2) / 16;
  // Where 64 rows or columns begin, in elements.
  static constexpr int kOuter64 = kPanel;
};

template <typename Shape>
struct Stages {
  static constexpr int kPiece = PieceLayout<Shape>::kElements;
  static constexpr size_t kBytes = sizeof(bf16) * Shape::kStages * (Shape::kLeft + Shape::kRight) +
                                   sizeof(float) * Shape::kWarps * kPiece + kPatternBytes - 16;

  SharedSpan<uint64_t> full, empty;
  SharedSpan<bf16> left, right;
  SharedSpan<float> pieces;
  MF_DEVICE Stages(const SharedSpan<uint64_t>& full_, const SharedSpan<uint64_t>& empty_,
                   DynamicShared&& memory)
      : full(full_),
        empty(empty_),
        left(memory.take<bf16>(Shape::kStages * Shape::kLeft, kPatternBytes)),
        right(memory.take<bf16>(Shape::kStages * Shape::kRight, kPatternBytes)),
        pieces(memory.take<float>(Shape::kWarps * kPiece)) {}
  MF_DEVICE SharedSpan<bf16> leftOf(int stage) const { return left.part(stage * Shape::kLeft, Shape::kLeft); }
  MF_DEVICE SharedSpan<bf16> rightOf(int stage) const {
    return right.part(stage * Shape::kRight, Shape::kRight);
  }
};

// Which stage comes next, and the parity of its barriers' phase.
template <int kStages>
struct Ring {
  int stage = 0, parity = 0;
  MF_DEVICE void next() {
    if (++stage < kStages) return;
    stage = 0;
    parity ^= 1;
  }
};

template <typename Job>
MF_DEVICE void fillStages(const Job& job, const Stages<typename Job::Shape>& stages) {
  using Shape = typename Job::Shape;
  lowerRegisters<Job::kFeedRegisters>();
  if (warpId() >= Shape::kWarps + Job::Feed::kWarps) return;
  typename Job::Feed feed;
  Ring<Shape::kStages> ring;
  Tile tile;
  for (int64_t index = blockId(); job.find(index, tile); index += gridBlocks()) {
    feed.begin(job, tile);
    for (int64_t k = tile.begin; k < tile.end; k += Shape::kDepth) {
      feed.fill(job, tile, stages, ring.stage, ring.parity, k);
      ring.next();
    }
  }
  feed.finish();
}

template <typename Job>
MF_DEVICE void multiplyStages(const Job& job, const Stages<typename Job::Shape>& stages) {
  using Shape = typename Job::Shape;
  using Left = StageMatrix<Job::kTransposeLeft>;
  using Right = StageMatrix<Job::kTransposeRight>;
  constexpr int kPiece = Stages<Shape>::kPiece;
  raiseRegisters<Job::kRegisters>();
  const int group = threadId() / kWarpgroup;
  const uint64_t left = Left::descriptor(stages.left.at(group * Left::kOuter64));
  const uint64_t right = Right::descriptor(stages.right.at(0));
  WarpSums<Shape> product;
  Ring<Shape::kStages> ring;
  Tile tile;
  for (int64_t index = blockId(); job.find(index, tile); index += gridBlocks()) {
    // A warpgroup whose rows lie outside the result only tells that it has seen the stages.
    const bool shares = tile.row + group * 64 < tile.rowEnd;
    int before = -1;  // the stage that is being multiplied
    if (Job::kMayHaveNoDepth && tile.begin >= tile.end) product.clear();
    for (int64_t k = tile.begin; k < tile.end; k += Shape::kDepth) {
      waitPhase(stages.full.at(ring.stage), ring.parity);
      if (Job::Feed::kCopiesByThreads) fenceProxy();
      if (shares) {
        const uint64_t a = left + ring.stage * (Shape::kLeft * 2 / 16);
        const uint64_t b = right + ring.stage * (Shape::kRight * 2 / 16);
        fenceWarpgroup();
        MF_UNROLL
        for (int step = 0; step < Shape::kDepth / 16; ++step)
          multiplyWarpgroup<Job::kTransposeLeft, Job::kTransposeRight>(
              product.sums[0], a + step * Left::kNext, b + step * Right::kNext, k > tile.begin || step > 0);
        commitWarpgroup();
        waitWarpgroup<1>();
      }
      if (before >= 0 && laneId() == 0) arrive(stages.empty.at(before));
      before = ring.stage;
      ring.next();
    }
    waitWarpgroup<0>();
    holdSums(product.sums[0]);
    if (before >= 0 && laneId() == 0) arrive(stages.empty.at(before));
    if (shares) finishTile<Shape>(product, stages.pieces.part(warpId() * kPiece, kPiece), tile, job.finish);
  }
}

template <typename Job>
MF_KERNEL_OF(Job::Shape::kThreads)
void warpgroupTilesKernel(MF_PARAMETER(Job) job) {
  using Shape = typename Job::Shape;
  MF_SHARED(uint64_t, full, Shape::kStages);
  MF_SHARED(uint64_t, empty, Shape::kStages);
  const Stages<Shape> stages(full, empty, DynamicShared());
  if (threadId() == 0) {
    for (int i = 0; i < Shape::kStages; ++i) {
      initBarrier(full.at(i), Job::Feed::kArrivals);
      initBarrier(empty.at(i), Shape::kWarps);
    }
    fenceBarriers();
  }
  syncThreads();
  if (warpId() < Shape::kWarps)
    multiplyStages(job, stages);
  else
    fillStages(job, stages);
}

// `most` is an upper bound of the number of tiles.
template <typename Job>
void launchWarpgroups(StreamHandle stream, const Job& job, int64_t most) {
  using Shape = typename Job::Shape;
  launch(warpgroupTilesKernel<Job>, {minimum<int64_t>(most, multiprocessors())}, Shape::kThreads,
         Stages<Shape>::kBytes, stream, job);
}

}  // namespace mf::cuda
