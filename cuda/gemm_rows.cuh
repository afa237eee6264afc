#pragma once
// The matrices of a grouped product as its kernels see them, and which block makes which tile of the result.
#include "cuda/plan.cuh"

namespace mf::cuda {

template <typename T>
bool isAligned16(const void* data, int64_t stride) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * static_cast<int64_t>(sizeof(T)) % 16 == 0;
}

// A matrix has memoryRow(i), where row i lies, at(memory row), `width`, and `aligned`: whether all rows begin
// at multiples of 16 bytes.
template <typename T>
struct PlannedRows {
  RowsOf rows;
  int64_t width;
  bool aligned;

  explicit PlannedRows(const RowsOf& from)
      : rows(from), width(from.width), aligned(isAligned16<T>(from.data, from.stride)) {}
  MF_DEVICE int memoryRow(int64_t s) const { return static_cast<int>(cuda::memoryRow(rows, s)); }
  MF_DEVICE const T* at(int row) const { return static_cast<const T*>(rows.data) + row * rows.stride; }
};

// The weights [experts] [rows, width]; select() takes those of one expert.
template <typename T>
struct ExpertWeights {
  const T* data;
  int64_t width, size;
  bool aligned;

  ExpertWeights(const void* from, int64_t rows, int64_t width_)
      : data(static_cast<const T*>(from)),
        width(width_),
        size(rows * width_),
        aligned(isAligned16<T>(from, width_)) {}
  MF_DEVICE ExpertWeights select(int64_t expert) const {
    ExpertWeights result = *this;
    result.data += expert * size;
    return result;
  }
  MF_DEVICE int memoryRow(int64_t i) const { return static_cast<int>(i); }
  MF_DEVICE const T* at(int row) const { return data + row * width; }
};

// A tile of the result: rows from `row` (up to rowEnd) and columns from `column` (up to columnEnd); sums over
// the depth [begin, end).
struct Tile {
  int64_t expert, row, rowEnd, column, columnEnd, begin, end;
};

// Tiles stand in groups of kGroupRows rows of tiles, and run down the columns of a group: blocks that run at
// the same time share rows and weights in the L2.
constexpr int kGroupRows = 8;

template <int kRows, int kColumns>
MF_DEVICE void placeTile(Tile& tile, int64_t index, int64_t rowTiles, int64_t columnTiles) {
  const int64_t group = index / (kGroupRows * columnTiles), first = group * kGroupRows;
  const int64_t height = minimum<int64_t>(kGroupRows, rowTiles - first);
  const int64_t rest = index - first * columnTiles;
  tile.row += (first + rest % height) * kRows;
  tile.column = rest / height * kColumns;
}

// The tiles of [rows, width], those of one expert after the other: each begins with a tile of its own. Called
// by whole warps.
template <int kRows, int kColumns>
struct ProductTiles {
  Groups groups;
  int64_t width, depth;

  int64_t most() const {
    // At most one tile of an expert is not full, and each has a row.
    const int64_t rowTiles = ceilDiv(groups.rows, kRows) + (groups.offsets ? groups.experts : 0);
    return minimum(rowTiles, groups.rows) * ceilDiv(width, kColumns);
  }

  // False beyond the last tile.
  MF_DEVICE bool find(int64_t index, Tile& tile) const {
    const int64_t columnTiles = ceilDiv(width, kColumns);
    tile = {0, 0, groups.rows, 0, width, 0, depth};
    if (!groups.offsets) {
      const int64_t rowTiles = ceilDiv(groups.rows, kRows);
      if (index >= rowTiles * columnTiles) return false;
      placeTile<kRows, kColumns>(tile, index, rowTiles, columnTiles);
      return true;
    }
    for (int64_t base = 0; base < groups.experts; base += kWarpSize) {
      // Each lane an expert; `through` counts rows of tiles up to and with it.
      const int64_t e = base + laneId();
      const bool exists = e < groups.experts;
      const int first = exists ? groups.offsets[e] : 0, last = exists ? groups.offsets[e + 1] : 0;
      const int own = maximum((last - first + kRows - 1) / kRows, 0);
      int through = own;
      MF_UNROLL
      for (int distance = 1; distance < kWarpSize; distance *= 2) {
        const int below = shuffleUp(through, distance);
        if (laneId() >= distance) through += below;
      }
      const uint32_t beyond = ballot(through * columnTiles > index);
      if (beyond == 0) {
        index -= shuffle(through, kWarpSize - 1) * columnTiles;
        continue;
      }
      const int lane = popCount((beyond & -beyond) - 1);
      const int rowTiles = shuffle(own, lane);
      index -= (shuffle(through, lane) - rowTiles) * columnTiles;
      tile.expert = base + lane;
      tile.row = shuffle(first, lane);
      tile.rowEnd = shuffle(last, lane);
      placeTile<kRows, kColumns>(tile, index, rowTiles, columnTiles);
      return true;
    }
    return false;
  }
};

}  // namespace mf::cuda
