#pragma once
// From the sums of a warp to memory, eight rows at a time through shared memory: the epilogue's code stands
// there once, and rows leave in whole 16 bytes.
#include "cuda/gemm_fragments.cuh"
#include "cuda/unary.cuh"

namespace mf::cuda {

constexpr int kPieceRows = 8;

// Of one warp, in floats, up to 64 columns at a time; rows are 8 floats further apart than they are long,
// against bank conflicts.
template <typename Shape>
struct PieceLayout {
  static constexpr int kWidth = Shape::kWarpWidth < 64 ? Shape::kWarpWidth : 64;
  static constexpr int kStride = kWidth + 8, kElements = kPieceRows * kStride;
};

// What the product's rows go through on their way out.
template <typename T, typename Out>
struct ProductFinish {
  RowsOf out;
  const T* bias;
  Epilogue epilogue;
  UnaryKind activation;
  Out* preActivation;
  bool aligned;

  explicit ProductFinish(const Product& p)
      : out(p.out),
        bias(static_cast<const T*>(p.bias)),
        epilogue(p.epilogue),
        activation(p.activation),
        preActivation(static_cast<Out*>(p.preActivation)),
        aligned(isAligned16<Out>(p.out.data, p.out.stride) &&
                isAligned16<Out>(p.preActivation, p.out.stride)) {}
  MF_DEVICE Out* data() const { return const_cast<Out*>(static_cast<const Out*>(out.data)); }
  MF_DEVICE int memoryRow(const Tile&, int64_t row) const {
    return static_cast<int>(cuda::memoryRow(out, row));
  }
  MF_DEVICE int64_t stride() const { return out.stride; }

  template <typename Piece>
  MF_DEVICE void write(const Piece& piece) const {
    if (bias)
      piece.change([&](int64_t, int64_t column, float x) { return x + static_cast<float>(bias[column]); });
    if (epilogue == Epilogue::Activation) {
      if (preActivation) piece.store(preActivation, aligned);
      piece.change([&](int64_t, int64_t, float x) { return unaryValue(activation, x); });
    } else if (epilogue == Epilogue::ActivationGrad) {
      piece.change([&](int64_t row, int64_t column, float x) {
        return x * unaryGrad(activation, static_cast<float>(preActivation[row * out.stride + column]));
      });
    }
    piece.store(data(), aligned);
  }
};

// The same for single elements.
template <typename T, typename Out>
struct ElementFinish {
  RowsOf out;
  const T* bias;
  Epilogue epilogue;
  UnaryKind activation;
  Out* preActivation;

  explicit ElementFinish(const Product& p)
      : out(p.out),
        bias(static_cast<const T*>(p.bias)),
        epilogue(p.epilogue),
        activation(p.activation),
        preActivation(static_cast<Out*>(p.preActivation)) {}
  template <typename A>
  MF_DEVICE void operator()(int64_t s, int64_t column, A value) const {
    const int64_t at = memoryRow(out, s) * out.stride + column;
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

// Rows of a gradient of weights, or of one part of its sums.
template <typename Out>
struct GradientFinish {
  Out* dw;  // [parts, experts, height, width]
  int64_t height, columns;
  bool accumulate, aligned;

  MF_DEVICE int memoryRow(const Tile& tile, int64_t row) const {
    return static_cast<int>(tile.expert * height + row);
  }
  MF_DEVICE int64_t stride() const { return columns; }
  template <typename Piece>
  MF_DEVICE void write(const Piece& piece) const {
    if (accumulate)
      piece.change([&](int64_t row, int64_t column, float x) {
        return x + static_cast<float>(dw[row * columns + column]);
      });
    piece.store(dw, aligned);
  }
};

// Eight rows of a warp's share of a tile, in shared memory.
template <typename Shape>
struct Piece {
  static constexpr int kStride = PieceLayout<Shape>::kStride, kWidth = PieceLayout<Shape>::kWidth;
  const SharedSpan<float>& values;
  const int (&memoryRows)[2];  // of this lane's rows, lane and 32 + lane of the warp's share
  int first, rows;             // its first row in the warp's share, and how many it has
  int64_t column, columnEnd, stride;

  MF_DEVICE int64_t memoryRow(int r) const {
    const int at = first + r;
    return shuffle(first < kWarpSize ? memoryRows[0] : memoryRows[1], at % kWarpSize);
  }
  // value = f(memory row, column, value)
  template <typename F>
  MF_DEVICE void change(F f) const {
    MF_NO_UNROLL
    for (int i = laneId(); i < kPieceRows * kWidth; i += kWarpSize) {
      const int r = i / kWidth, c = i % kWidth;
      const int64_t row = memoryRow(r);
      if (r < rows && column + c < columnEnd) {
        float& value = values[r * kStride + c];
        value = f(row, column + c, value);
      }
    }
    syncWarp();
  }
  template <typename Out>
  MF_DEVICE void store(Out* data, bool aligned) const {
    constexpr int kCount = kVector<Out>, kChunks = kWidth / kCount;
    MF_NO_UNROLL
    for (int i = laneId(); i < kPieceRows * kChunks; i += kWarpSize) {
      const int r = i / kChunks, c = i % kChunks * kCount;
      const int64_t row = memoryRow(r);
      if (r >= rows || column + c >= columnEnd) continue;
      Out* target = data + row * stride + column + c;
      Vector<Out, kCount> chunk;
      MF_UNROLL
      for (int v = 0; v < kCount; v += 4) {
        const auto& four = asVector<Vector<float, 4>>(values.at(r * kStride + c + v));
        MF_UNROLL
        for (int u = 0; u < 4; ++u) chunk.at[v + u] = static_cast<Out>(four.at[u]);
      }
      if (aligned) {
        asVector<Vector<Out, kCount>>(target) = chunk;
      } else {
        MF_UNROLL
        for (int v = 0; v < kCount; ++v)
          if (column + c + v < columnEnd) target[v] = chunk.at[v];
      }
    }
    syncWarp();
  }
};

// Writes the tile's sums; `values` is this warp's own.
template <typename Shape, typename Finish>
MF_DEVICE void finishTile(const WarpSums<Shape>& product, const SharedSpan<float>& values, const Tile& tile,
                          const Finish& finish) {
  constexpr int kStride = PieceLayout<Shape>::kStride, kWidth = PieceLayout<Shape>::kWidth;
  static_assert(Shape::kWarpHeight <= 2 * kWarpSize && Shape::kWarpWidth % kWidth == 0);
  const int64_t row = tile.row + Shape::row(), column = tile.column + Shape::column();
  if (row >= tile.rowEnd || column >= tile.columnEnd) return;
  int memoryRows[2];
  MF_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int64_t own = row + i * kWarpSize + laneId();
    memoryRows[i] = own < tile.rowEnd ? finish.memoryRow(tile, own) : 0;
  }
  const int g = laneId() / 4, t = laneId() % 4;
  const int height = static_cast<int>(minimum<int64_t>(tile.rowEnd - row, Shape::kWarpHeight));
  const int width = static_cast<int>(minimum<int64_t>(tile.columnEnd - column, Shape::kWarpWidth));
  MF_NO_UNROLL
  for (int first = 0; first < height; first += kPieceRows) {
    MF_NO_UNROLL
    for (int left = 0; left < width; left += kWidth) {
      MF_UNROLL
      for (int i = 0; i < Shape::kFragmentRows * 2; ++i) MF_UNROLL
      for (int part = 0; part < Shape::kWarpWidth / kWidth; ++part) {
        if (i * kPieceRows != first || part * kWidth != left) continue;
        MF_UNROLL
        for (int j = 0; j < kWidth / 8; ++j) {
          const float(&sums)[4] = product.sums[i / 2][part * (kWidth / 8) + j];
          asVector<Vector<float, 2>>(values.at(g * kStride + j * 8 + 2 * t)) = {sums[i % 2 * 2],
                                                                                sums[i % 2 * 2 + 1]};
        }
      }
      syncWarp();
      finish.write(Piece<Shape>{values, memoryRows, first, minimum(height - first, kPieceRows), column + left,
                                tile.columnEnd, finish.stride()});
    }
  }
}

}  // namespace mf::cuda
