#pragma once
// Products of one warp: d [16, 8] += a [16, kDepth] b [kDepth, 8], with operands from tiles in shared memory.
// bf16 on tensor cores; f32 as three TF32 products (the rest of each operand beside its upper 11 bits keeps
// f32 accuracy); f64 on the tensor cores' f64. Everywhere lane 4 g + t has d[0], d[1] in row g and d[2], d[3]
// in row g + 8, in columns 2 t and 2 t + 1.
//
// Scores are a special left operand: those of 16 rows and 64 keys are eight fragments whose columns are
// permuted, so that lane t has the keys 16 t to 16 t + 15 of its rows in their order: key j of them is
// element j % 2 of fragment j / 2.
#include "cuda/pack.cuh"

namespace mf::cuda {

template <typename T>
constexpr int kPanel = 128 / static_cast<int>(sizeof(T));

// A row or column: what depends on the lane, and what the compiler knows or a loop counts; they have no bit
// in common.
struct Place {
  int lane, fixed;
};

// A tile in shared memory, in panels of 128 bytes of each row. The 16-byte pieces of a row are permuted such
// that neither eight rows in sequence nor those of eight permuted keys meet in a bank.
template <typename T, int kRows>
class PanelTile {
 public:
  MF_DEVICE PanelTile(DynamicShared& memory, int panels)
      : data_(memory.take<T>(panels * kRows * kPanel<T>)) {}
  static constexpr size_t bytes(int panels) { return size_t{128} * kRows * static_cast<size_t>(panels); }
  MF_DEVICE PanelTile part(int firstPanel, int panels) const {
    return PanelTile(data_.part(firstPanel * kRows * kPanel<T>, panels * kRows * kPanel<T>));
  }

  MF_DEVICE T& at(int row, int column) const { return at(Place{row, 0}, Place{column, 0}); }
  // In this form few addresses differ between the elements of a lane by more than a constant.
  MF_DEVICE T& at(Place row, Place column) const {
    const int piece = permuted(row.lane, column.lane) ^ permuted(row.fixed, column.fixed);
    const int panel = column.lane / kPanel<T> + column.fixed / kPanel<T>;
    return data_[(panel * kRows + row.lane + row.fixed) * kPanel<T> + piece * kVector<T> +
                 (column.lane % kVector<T> + column.fixed % kVector<T>)];
  }

 private:
  MF_DEVICE explicit PanelTile(const SharedSpan<T>& data) : data_(data) {}
  // Linear in the bits of both.
  MF_DEVICE static int permuted(int row, int column) {
    return column % kPanel<T> / kVector<T> ^ (row & 7) ^ (row >> 3 & 6);
  }

  SharedSpan<T> data_;
};

// Copies [kRows, panels * kPanel] of a matrix (see tile.cuh) from (row, column) on, asynchronously where it
// is aligned, with zeros outside of it.
template <int kThreadCount, typename T, int kRows, typename Matrix>
MF_DEVICE void loadPanels(const PanelTile<T, kRows>& tile, const Matrix& from, int64_t row, int64_t column,
                          int panels) {
  for (int i = threadId(); i < kRows * 8 * panels; i += kThreadCount) {
    const int r = i / 8 % kRows, c = i / 8 / kRows * kPanel<T> + i % 8 * kVector<T>;
    const T* source = from.row(row + r);
    const int64_t left = source ? from.width - column - c : 0;
    T* target = &tile.at(r, c);
    if (from.aligned) {
      const int filled = left >= kVector<T> ? 16 : left > 0 ? static_cast<int>(left * sizeof(T)) : 0;
      copyAsync16(target, filled > 0 ? source + column + c : from.anywhere(), filled);
    } else {
      MF_UNROLL
      for (int v = 0; v < kVector<T>; ++v)
        target[v] = v < left ? source[column + c + v] : static_cast<T>(0.0f);
    }
  }
}

// Rows of a tile as the columns or the depth of a right operand: row(i) for i = lane + fixed.
struct RowsFrom {
  int first;
  MF_DEVICE Place operator()(int lane, int fixed) const { return {lane, first + fixed}; }
};
// The keys of columns: those of fragments n and n + 1, n being even. Column c of fragment n is key c / 2 * 16
// + 2 n
// + c % 2.
struct KeysOfFragments {
  int n;
  MF_DEVICE Place operator()(int lane, int fixed) const {
    return {lane % 8 / 2 * 16 + lane / 8 * 2 + lane % 2, 2 * n + fixed / 4};
  }
};

template <typename T>
struct Fragments;

template <>
struct Fragments<bf16> {
  static constexpr int kDepth = 16;
  struct Left {
    uint32_t words[4];
  };
  struct Right {
    uint32_t words[2];
  };

  MF_DEVICE static void multiply(float (&d)[4], const Left& a, const Right& b) {
    mmaBf16(d, a.words, b.words);
  }

  // Matrices in the order of the registers: rows 0-7 and 8-15 of depths 0-7, then those of depths 8-15.
  template <typename Tile>
  MF_DEVICE static void loadLeft(const Tile& tile, int row, int k, Left& a) {
    const int matrix = laneId() / 8, r = laneId() % 8;
    loadMatrix4(a.words, &tile.at({row + matrix % 2 * 8 + r, 0}, {matrix / 2 * 8, k}));
  }
  // From a tile whose rows are the depth.
  template <typename Tile>
  MF_DEVICE static void loadLeftTransposed(const Tile& tile, int row, int k, Left& a) {
    const int matrix = laneId() / 8, r = laneId() % 8;
    loadMatrix4Transposed(a.words, &tile.at({matrix / 2 * 8 + r, k}, {row + matrix % 2 * 8, 0}));
  }
  // Two fragments; column c of the 16 is row rowOf(c) of the tile.
  template <typename Tile, typename RowOf>
  MF_DEVICE static void loadRight(const Tile& tile, RowOf rowOf, int k, Right& first, Right& second) {
    const int matrix = laneId() / 8, r = laneId() % 8;
    uint32_t words[4];
    loadMatrix4(words, &tile.at(rowOf(matrix / 2 * 8 + r, 0), {matrix % 2 * 8, k}));
    take(words, first, second);
  }
  // Two fragments; depth i is row rowOf(i) of the tile.
  template <typename Tile, typename RowOf>
  MF_DEVICE static void loadRightTransposed(const Tile& tile, RowOf rowOf, Place column, Right& first,
                                            Right& second) {
    const int matrix = laneId() / 8, r = laneId() % 8;
    uint32_t words[4];
    loadMatrix4Transposed(
        words, &tile.at(rowOf(matrix % 2 * 8 + r, 0), {matrix / 2 * 8 + column.lane, column.fixed}));
    take(words, first, second);
  }

  // Step s of the depth of scores, and the key of its depth i.
  MF_DEVICE static void scoresAsLeft(const float (&scores)[8][4], int step, Left& a) {
    MF_UNROLL
    for (int v = 0; v < 4; ++v) {
      const float* pair = scores[2 * step + v / 2] + v % 2 * 2;
      a.words[v] = packBf16(pair[0], pair[1]);
    }
  }
  struct KeysOfStep {
    int step;
    MF_DEVICE Place operator()(int lane, int) const {
      return {lane % 8 / 2 * 16 + lane / 8 * 2 + lane % 2, 4 * step};
    }
  };

 private:
  MF_DEVICE static void take(const uint32_t (&words)[4], Right& first, Right& second) {
    first.words[0] = words[0];
    first.words[1] = words[1];
    second.words[0] = words[2];
    second.words[1] = words[3];
  }
};

// What f32 and f64 share: a lane's elements are loaded one by one.
template <typename T, typename Element>
struct ElementFragments {
  static constexpr int kDepth = 8;
  struct Left {
    Element elements[4];
  };
  struct Right {
    Element elements[2];
  };

  template <typename Tile>
  MF_DEVICE static void loadLeft(const Tile& tile, int row, int k, Left& a) {
    const int g = laneId() / 4, t = laneId() % 4;
    MF_UNROLL
    for (int v = 0; v < 4; ++v) a.elements[v] = Element(tile.at({row + g, v % 2 * 8}, {t, k + v / 2 * 4}));
  }
  template <typename Tile>
  MF_DEVICE static void loadLeftTransposed(const Tile& tile, int row, int k, Left& a) {
    const int g = laneId() / 4, t = laneId() % 4;
    MF_UNROLL
    for (int v = 0; v < 4; ++v) a.elements[v] = Element(tile.at({t, k + v / 2 * 4}, {row + g, v % 2 * 8}));
  }
  template <typename Tile, typename RowOf>
  MF_DEVICE static void loadRight(const Tile& tile, RowOf rowOf, int k, Right& first, Right& second) {
    const int g = laneId() / 4, t = laneId() % 4;
    MF_UNROLL
    for (int v = 0; v < 2; ++v) {
      first.elements[v] = Element(tile.at(rowOf(g, 0), {t, k + v * 4}));
      second.elements[v] = Element(tile.at(rowOf(g, 8), {t, k + v * 4}));
    }
  }
  template <typename Tile, typename RowOf>
  MF_DEVICE static void loadRightTransposed(const Tile& tile, RowOf rowOf, Place column, Right& first,
                                            Right& second) {
    const int g = laneId() / 4, t = laneId() % 4;
    MF_UNROLL
    for (int v = 0; v < 2; ++v) {
      first.elements[v] = Element(tile.at(rowOf(t, v * 4), {column.lane + g, column.fixed}));
      second.elements[v] = Element(tile.at(rowOf(t, v * 4), {column.lane + g, column.fixed + 8}));
    }
  }
  // The depths are permuted as well: t is column 2 t of the fragment, t + 4 is column 2 t + 1.
  MF_DEVICE static void scoresAsLeft(const T (&scores)[8][4], int step, Left& a) {
    MF_UNROLL
    for (int v = 0; v < 4; ++v) a.elements[v] = Element(scores[step][v % 2 * 2 + v / 2]);
  }
  struct KeysOfStep {
    int step;
    MF_DEVICE Place operator()(int lane, int fixed) const { return {lane * 16, 2 * step + fixed / 4}; }
  };
};

// x = upper + lower with 11 significant bits each, but for the last two or three bits of x.
struct Tf32Pair {
  uint32_t upper, lower;
  Tf32Pair() = default;
  MF_DEVICE explicit Tf32Pair(float x) {
    memcpy(&upper, &x, sizeof upper);
    upper &= 0xffffe000u;
    float head;
    memcpy(&head, &upper, sizeof head);
    const float tail = x - head;
    memcpy(&lower, &tail, sizeof lower);
  }
};

template <>
struct Fragments<float> : ElementFragments<float, Tf32Pair> {
  MF_DEVICE static void multiply(float (&d)[4], const Left& a, const Right& b) {
    uint32_t upper[4], lower[4];
    MF_UNROLL
    for (int v = 0; v < 4; ++v) {
      upper[v] = a.elements[v].upper;
      lower[v] = a.elements[v].lower;
    }
    const uint32_t right[2] = {b.elements[0].upper, b.elements[1].upper};
    const uint32_t rest[2] = {b.elements[0].lower, b.elements[1].lower};
    mmaTf32(d, lower, right);
    mmaTf32(d, upper, rest);
    mmaTf32(d, upper, right);
  }
};

template <>
struct Fragments<double> : ElementFragments<double, double> {
  MF_DEVICE static void multiply(double (&d)[4], const Left& a, const Right& b) {
    MF_UNROLL
    for (int half = 0; half < 2; ++half) MF_UNROLL
    for (int k = 0; k < 2; ++k) mmaF64(d[2 * half], d[2 * half + 1], a.elements[half + 2 * k], b.elements[k]);
  }
};

// scores [16, 64] += rows `row` to row + 15 of left times those of right, over the first `depth` columns.
template <typename T, typename LeftTile, typename RightTile>
MF_DEVICE void addScores(Accumulate<T> (&scores)[8][4], const LeftTile& left, int row, const RightTile& right,
                         int depth) {
  using F = Fragments<T>;
  for (int k = 0; k < depth; k += F::kDepth) {
    typename F::Left a;
    F::loadLeft(left, row, k, a);
    MF_UNROLL
    for (int n = 0; n < 8; n += 2) {
      typename F::Right first, second;
      F::loadRight(right, KeysOfFragments{n}, k, first, second);
      F::multiply(scores[n], a, first);
      F::multiply(scores[n + 1], a, second);
    }
  }
}

// sums [16, 8 n] += scores [16, 64] times the rows of `right` [64, 8 n], of which columns from `width` on are
// not needed.
template <typename T, int n, typename Tile>
MF_DEVICE void addValues(Accumulate<T> (&sums)[n][4], const Accumulate<T> (&scores)[8][4], const Tile& right,
                         int width) {
  using F = Fragments<T>;
  MF_UNROLL
  for (int step = 0; step < 64 / F::kDepth; ++step) {
    typename F::Left a;
    F::scoresAsLeft(scores, step, a);
    MF_UNROLL
    for (int j = 0; j < n; j += 2) {
      if (8 * j >= width) continue;
      typename F::Right first, second;
      F::loadRightTransposed(right, typename F::KeysOfStep{step}, {0, 8 * j}, first, second);
      F::multiply(sums[j], a, first);
      F::multiply(sums[j + 1], a, second);
    }
  }
}

// sums [16, 8 n] += the columns `column` to column + 15 of left [64, ..], transposed, times right [64, 8 n].
template <typename T, int n, typename LeftTile, typename RightTile>
MF_DEVICE void addTransposed(Accumulate<T> (&sums)[n][4], const LeftTile& left, int column,
                             const RightTile& right, int width) {
  using F = Fragments<T>;
  for (int k = 0; k < 64; k += F::kDepth) {
    typename F::Left a;
    F::loadLeftTransposed(left, column, k, a);
    MF_UNROLL
    for (int j = 0; j < n; j += 2) {
      if (8 * j >= width) continue;
      typename F::Right first, second;
      F::loadRightTransposed(right, RowsFrom{k}, {0, 8 * j}, first, second);
      F::multiply(sums[j], a, first);
      F::multiply(sums[j + 1], a, second);
    }
  }
}

template <typename A, int n>
MF_DEVICE void clear(A (&sums)[n][4]) {
  MF_UNROLL
  for (int j = 0; j < n; ++j) MF_UNROLL
  for (int v = 0; v < 4; ++v) sums[j][v] = A(0);
}

}  // namespace mf::cuda
