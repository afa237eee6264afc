// 8-bit weights: quantising, and products with few rows an expert (weights streamed as they are) or many (the
// weights of the experts that have rows are widened, then go through the GEMM).
#include "cuda/cuda_backend.h"
#include "cuda/plan.cuh"
#include "cuda/unary.cuh"

namespace mf::cuda {
namespace {

constexpr int kVector = 16;  // weights of one load; a group has whole ones
constexpr int kStreamThreads = 128;
constexpr int kStreamRows = 8;     // of a tile
constexpr int kStreamColumns = 2;  // of a warp
constexpr int64_t kFewQuantizedRows = 16;

// One group of one output, counted with the outputs innermost, as they lie in [in, out].
template <typename T>
struct QuantizeGroup {
  const T* w;
  int8_t* values;
  float* scales;
  int64_t in, out, group;
  bool transposeW;
  MF_DEVICE void operator()(int64_t i) const {
    const int64_t groups = in / group, o = i % out, g = i / out % groups, e = i / out / groups;
    const int64_t row = e * out + o, stride = transposeW ? 1 : out;
    const T* from = transposeW ? w + row * in + g * group : w + (e * in + g * group) * out + o;
    float top = 0;
    bool usable = true;
    for (int64_t k = 0; k < group; ++k) {
      const float size = std::abs(static_cast<float>(from[k * stride]));
      usable = usable && size < INFINITY;
      top = maximum(top, size);
    }
    const float scale = top / 127, inverse = usable && scale > 0 ? 1 / scale : 0;
    int8_t* to = values + row * in + g * group;
    for (int64_t k = 0; k < group; ++k) {
      const float scaled = usable ? static_cast<float>(from[k * stride]) * inverse : 0;
      to[k] = static_cast<int8_t>(std::nearbyint(minimum(127.0f, maximum(-127.0f, scaled))));
    }
    scales[row * groups + g] = usable ? scale : NAN;
  }
};

struct Quantized {
  const int8_t* values;  // [E, out, in]
  const float* scales;   // [E, out, in / group]
  int64_t in, out, group;
};

// Memory that is read and written at once.
template <typename T>
struct alignas(16) Vector {
  T values[kVector];
};

// kVector weights from p on, without their scale. As a byte of 2^23 + 128 + value: conversions from integers
// are slow.
struct WeightVector {
  float values[kVector];
  MF_DEVICE explicit WeightVector(const int8_t* p) {
    const auto bytes = *reinterpret_cast<const Vector<int8_t>*>(p);
    uint32_t words[kVector / 4];
    std::memcpy(words, &bytes, sizeof words);
    MF_UNROLL
    for (int i = 0; i < kVector; ++i) {
      const uint32_t bits = ((words[i / 4] ^ 0x80808080u) >> (i % 4 * 8) & 0xffu) | 0x4b000000u;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      values[i] = value - 8388736.0f;
    }
  }
};

// kVector weights of an expert that has rows, in T.
template <typename T>
struct Widen {
  Quantized w;
  const int32_t* offsets;
  T* result;
  MF_DEVICE void operator()(int64_t i) const {
    const int64_t at = i * kVector;
    if (offsets) {
      const int64_t expert = at / (w.in * w.out);
      if (offsets[expert] == offsets[expert + 1]) return;
    }
    const WeightVector vector(w.values + at);
    const float scale = w.scales[at / w.group];
    Vector<T> widened;
    MF_UNROLL
    for (int k = 0; k < kVector; ++k) widened.values[k] = static_cast<T>(vector.values[k] * scale);
    *reinterpret_cast<Vector<T>*>(result + at) = widened;
  }
};

// Up to kStreamRows rows of one expert.
struct StreamTile {
  int64_t expert = 0, row = 0;
  int rows = 0;
  MF_DEVICE bool find(const Groups& groups, int64_t index) {
    for (; expert < groups.experts; ++expert) {
      const int64_t first = groups.offsets ? groups.offsets[expert] : 0;
      const int64_t last = groups.offsets ? groups.offsets[expert + 1] : groups.rows;
      const int64_t tiles = (last - first + kStreamRows - 1) / kStreamRows;
      if (index < tiles) {
        row = first + index * kStreamRows;
        rows = static_cast<int>(minimum(int64_t{kStreamRows}, last - row));
        return true;
      }
      index -= maximum(tiles, int64_t{0});
    }
    return false;
  }
};

// Each warp reads kStreamColumns rows of [out, in] once, and multiplies them with all rows of the tile.
template <typename T, typename Out>
MF_KERNEL void streamKernel(Quantized w, RowsOf x, RowsOf out, Groups groups, Epilogue epilogue,
                            UnaryKind activation) {
  StreamTile tile;
  if (!tile.find(groups, blockIdY())) return;
  const int64_t column = (int64_t{blockId()} * (kStreamThreads / kWarpSize) + warpId()) * kStreamColumns;
  if (column >= w.out) return;
  const int64_t scalesPerRow = w.in / w.group;
  int64_t weightRow[kStreamColumns];
  MF_UNROLL
  for (int c = 0; c < kStreamColumns; ++c)
    weightRow[c] = tile.expert * w.out + minimum(column + c, w.out - 1);
  const T* rows[kStreamRows];
  MF_UNROLL
  for (int r = 0; r < kStreamRows; ++r)
    rows[r] = static_cast<const T*>(x.data) + memoryRow(x, tile.row + minimum(r, tile.rows - 1)) * w.in;
  float sums[kStreamRows][kStreamColumns] = {};
  for (int64_t k = laneId() * kVector; k < w.in; k += kWarpSize * kVector) {
    MF_UNROLL
    for (int c = 0; c < kStreamColumns; ++c) {
      const WeightVector weights(w.values + weightRow[c] * w.in + k);
      const float scale = w.scales[weightRow[c] * scalesPerRow + k / w.group];
      MF_UNROLL
      for (int r = 0; r < kStreamRows; ++r) {
        if (r >= tile.rows) continue;
        const auto inputs = *reinterpret_cast<const Vector<T>*>(rows[r] + k);
        float part = 0;
        MF_UNROLL
        for (int i = 0; i < kVector; ++i) part += weights.values[i] * static_cast<float>(inputs.values[i]);
        sums[r][c] += part * scale;
      }
    }
  }
  MF_UNROLL
  for (int r = 0; r < kStreamRows; ++r) {
    if (r >= tile.rows) continue;
    MF_UNROLL
    for (int c = 0; c < kStreamColumns; ++c) {
      float value = sums[r][c];
      MF_UNROLL
      for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value += shuffleXor(value, mask);
      if (laneId() != r * kStreamColumns + c || column + c >= w.out) continue;
      if (epilogue == Epilogue::Activation) value = unaryValue(activation, value);
      auto* result = const_cast<Out*>(static_cast<const Out*>(out.data));
      result[memoryRow(out, tile.row + r) * w.out + column + c] = static_cast<Out>(value);
    }
  }
}

template <typename T, typename Out>
void streamRows(StreamHandle stream, const Quantized& w, const RowsOf& x, const RowsOf& out,
                const Groups& groups, Epilogue epilogue, UnaryKind activation) {
  // At most one tile of an expert is not full, and each has a row.
  const int64_t tiles = minimum(groups.rows, ceilDiv(groups.rows, kStreamRows) + groups.experts);
  const int64_t columns = int64_t{kStreamThreads / kWarpSize} * kStreamColumns;
  launch(streamKernel<T, Out>, {ceilDiv(w.out, columns), tiles}, kStreamThreads, 0, stream, w, x, out, groups,
         epilogue, activation);
}

}  // namespace

void CudaBackend::quantize(const QuantizeArgs& args) {
  const int64_t in = args.values.size(-1), out = args.values.size(-2);
  dispatchFloat(args.w.dtype, [&]<typename T>() {
    forElements(stream_, args.scales.numel(),
                QuantizeGroup<T>{args.w.as<T>(), args.values.as<int8_t>(), args.scales.as<float>(), in, out,
                                 args.groupSize, args.transposeW});
  });
}

void CudaBackend::quantizedGemm(const QuantizedGemmArgs& args) {
  const bool planned = args.offsets || args.order;
  const int64_t experts = args.values.shape.rank == 3 ? args.values.size(0) : 1, rows = args.out.rows();
  const int64_t in = args.values.size(-1), width = args.values.size(-2);
  const Quantized w{args.values.as<int8_t>(), args.scales.as<float>(), in, width, in / args.scales.size(-1)};
  const bool few = rows <= kFewQuantizedRows * experts;
  const int64_t planBytes = planned ? ceilDiv((rows + experts + 1) * 4, 256) * 256 : 0;
  const int64_t widenedBytes =
      few || experts == 1 ? 0 : experts * width * in * static_cast<int64_t>(itemSize(args.x.dtype));
  char* memory = planBytes + widenedBytes > 0 ? scratchOf<char>(planBytes + widenedBytes) : nullptr;
  const CheckedPlan plan(stream_, args.offsets, args.order, experts, rows, reinterpret_cast<int32_t*>(memory),
                         fault_);
  const Groups groups{experts, rows, plan.offsets};
  const RowsOf x = rowsOf(args.x, args.xRows, plan.order, args.topK);
  const RowsOf out = rowsOf(args.out, args.outRows, plan.order, args.topK);
  const auto run = [&]<typename T, typename Out>() {
    if (few) return streamRows<T, Out>(stream_, w, x, out, groups, args.epilogue, args.activation);
    T* widened = widenedBytes > 0 ? reinterpret_cast<T*>(memory + planBytes) : args.widened.as<T>();
    forElements(stream_, experts * width * in / kVector, Widen<T>{w, plan.offsets, widened});
    multiply<T, Out>(stream_,
                     {groups, x, widened, true, out, nullptr, args.epilogue, args.activation, nullptr});
  };
  if (args.x.dtype == DType::f32)
    run.template operator()<float, float>();
  else if (args.out.dtype == DType::f32)
    run.template operator()<bf16, float>();
  else
    run.template operator()<bf16, bf16>();
  if (planned) raiseFault();
}

}  // namespace mf::cuda
