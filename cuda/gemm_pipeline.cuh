#pragma once
// A persistent block: it makes every gridBlocks()-th tile of a job. Copies run kStages - 1 steps ahead of the
// products, across the ends of tiles too.
//
// A Job is trivially copyable and has
//   Shape (a BlockShape), Element, kLeftInner, kRightInner
//   find(index, tile)      false beyond the last tile
//   left(tile), right(tile) the operands' matrices; leftEnd(tile), rightEnd(tile) where their outer side ends
//   finish                  what writes the sums
#include "cuda/gemm_epilogue.cuh"

namespace mf::cuda {

template <typename Job>
struct BlockMemory {
  using Shape = typename Job::Shape;
  using T = typename Job::Element;
  static constexpr int kLeft = Shape::kRows * kStageDepth<T>, kRight = Shape::kColumns * kStageDepth<T>;
  static constexpr int kPiece = PieceLayout<Shape>::kElements;
  static constexpr size_t kBytes =
      sizeof(T) * kStages * (kLeft + kRight) + sizeof(float) * Shape::kWarps * kPiece;

  SharedSpan<T> left, right;
  SharedSpan<float> pieces;
  MF_DEVICE explicit BlockMemory(DynamicShared&& memory)
      : left(memory.take<T>(kStages * kLeft)),
        right(memory.take<T>(kStages * kRight)),
        pieces(memory.take<float>(Shape::kWarps * kPiece)) {}
};

// Fills the stages, step by step and tile by tile.
template <typename Job>
class Feed {
  using Shape = typename Job::Shape;
  using T = typename Job::Element;
  using Memory = BlockMemory<Job>;

 public:
  MF_DEVICE Feed(const Job& job, const Memory& memory) : job_(job), memory_(memory), index_(blockId()) {
    nextTile();
  }
  MF_DEVICE void fill(int stage) {
    if (live_) {
      left_.next(memory_.left.part(stage * Memory::kLeft, Memory::kLeft), job_.left(tile_));
      right_.next(memory_.right.part(stage * Memory::kRight, Memory::kRight), job_.right(tile_));
      tile_.begin += kStageDepth<T>;
      if (tile_.begin >= tile_.end) nextTile();
    }
    commitCopies();
  }

 private:
  // The next tile that has any depth.
  MF_DEVICE void nextTile() {
    do {
      live_ = job_.find(index_, tile_);
      index_ += gridBlocks();
    } while (live_ && tile_.begin >= tile_.end);
    if (!live_) return;
    left_.begin(job_.left(tile_), tile_.row, job_.leftEnd(tile_), tile_.begin, tile_.end);
    right_.begin(job_.right(tile_), tile_.column, job_.rightEnd(tile_), tile_.begin, tile_.end);
  }

  const Job& job_;
  const Memory& memory_;
  int64_t index_;
  Tile tile_;
  bool live_;
  StageCopies<T, Shape::kRows, Shape::kThreads, Job::kLeftInner> left_;
  StageCopies<T, Shape::kColumns, Shape::kThreads, Job::kRightInner> right_;
};

template <typename Job>
MF_KERNEL void tilesKernel(Job job) {
  using Shape = typename Job::Shape;
  using T = typename Job::Element;
  using Memory = BlockMemory<Job>;
  const Memory memory{DynamicShared()};
  Feed<Job> feed(job, memory);
  for (int i = 0; i < kStages - 1; ++i) feed.fill(i);
  WarpProduct<T, Shape, Job::kLeftInner, Job::kRightInner> product;
  int stage = 0;
  Tile tile;
  for (int64_t index = blockId(); job.find(index, tile); index += gridBlocks()) {
    product.clear();
    // A warp whose share lies outside the result only helps to copy.
    const bool shares =
        tile.row + Shape::row() < tile.rowEnd && tile.column + Shape::column() < tile.columnEnd;
    for (int64_t k = tile.begin; k < tile.end; k += kStageDepth<T>) {
      waitCopies<kStages - 2>();
      syncThreads();
      // The stage that all have left before this barrier.
      feed.fill(stage == 0 ? kStages - 1 : stage - 1);
      if (shares)
        product.add(memory.left.part(stage * Memory::kLeft, Memory::kLeft),
                    memory.right.part(stage * Memory::kRight, Memory::kRight));
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    finishTile<Shape>(product, memory.pieces.part(warpId() * Memory::kPiece, Memory::kPiece), tile,
                      job.finish);
  }
}

// `most` is an upper bound of the number of tiles.
template <typename Job>
void launchTiles(StreamHandle stream, const Job& job, int64_t most) {
  constexpr int kBlocksAtOnce = 256 / Job::Shape::kThreads;  // on a multiprocessor, by registers
  launch(tilesKernel<Job>, {minimum<int64_t>(most, int64_t{multiprocessors()} * kBlocksAtOnce)},
         Job::Shape::kThreads, BlockMemory<Job>::kBytes, stream, job);
}

}  // namespace mf::cuda
