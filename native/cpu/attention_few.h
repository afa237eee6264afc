#pragma once
// Scores and sums of up to kFewRows rows of a head (decoding), with channels in the lanes: rows in the lanes,
// as in attention_tile.h, would leave most of them empty. Tiles of weights are [keys][W] all the same.
#include "cpu/attention_pack.h"

namespace MF_CPU_NAMESPACE {
constexpr int64_t kFewRows = 4;

// rows [R, C] times scale, from rows that lie `stride` apart.
template <typename A, typename T>
inline void widenRows(const T* x, int64_t stride, int64_t rows, int64_t C, A scale, A* out) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < C; ++c) out[r * C + c] = A(x[r * stride + c]) * scale;
}

// tile [keys, W]: the dot products of R rows q [R, C] with each key; 0 in the other lanes.
template <int R, int64_t W, typename A, typename T>
void dotFew(int64_t keys, int64_t C, const T* k, int64_t stride, const A* q, A* tile) {
  using V = Vec<A>;
  constexpr int64_t L = kLanesOf<A>;
  constexpr int kChains = 4;
  for (int64_t j = 0; j < keys; ++j) {
    const T* key = k + j * stride;
    V sum[R][kChains] = {};
    int64_t c = 0;
    for (; c + kChains * L <= C; c += kChains * L)
      for (int n = 0; n < kChains; ++n) {
        const V channels = widen<V>(key + c + n * L);
        for (int r = 0; r < R; ++r) sum[r][n] += channels * load<V>(q + r * C + c + n * L);
      }
    for (; c + L <= C; c += L)
      for (int r = 0; r < R; ++r) sum[r][0] += widen<V>(key + c) * load<V>(q + r * C + c);
    for (int64_t r = 0; r < W; ++r) tile[j * W + r] = 0;
    for (int r = 0; r < R; ++r) {
      A lanes[L], total = 0;
      store(lanes, (sum[r][0] + sum[r][1]) + (sum[r][2] + sum[r][3]));
      for (int64_t half = L / 2; half > 0; half /= 2)
        for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
      for (int64_t rest = c; rest < C; ++rest) total += A(key[rest]) * q[r * C + rest];
      tile[j * W + r] = lanes[0] + total;
    }
  }
}

// sums [R, C] += the first R columns of tile [keys, W], transposed, times v [keys, C], for channels [from,
// to).
template <int R, int64_t W, typename A, typename T>
void addFew(int64_t keys, int64_t from, int64_t to, int64_t C, const T* v, int64_t stride, const A* tile,
            A* sums) {
  using V = Vec<A>;
  constexpr int64_t L = kLanesOf<A>;
  constexpr int kWidth = 4;
  int64_t c = from;
  const auto strip = [&]<int N>() {
    V sum[R][N];
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) sum[r][n] = load<V>(sums + r * C + c + n * L);
    for (int64_t j = 0; j < keys; ++j)
      for (int n = 0; n < N; ++n) {
        const V channels = widen<V>(v + j * stride + c + n * L);
        for (int r = 0; r < R; ++r) sum[r][n] += broadcast<V>(tile[j * W + r]) * channels;
      }
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) store(sums + r * C + c + n * L, sum[r][n]);
  };
  for (; c + kWidth * L <= to; c += kWidth * L) strip.template operator()<kWidth>();
  for (; c + L <= to; c += L) strip.template operator()<1>();
  for (; c < to; ++c)
    for (int r = 0; r < R; ++r)
      for (int64_t j = 0; j < keys; ++j) sums[r * C + c] += tile[j * W + r] * A(v[j * stride + c]);
}

// f.operator()<R>() for R = rows, 1 to kFewRows.
template <typename F>
inline void dispatchFewRows(int64_t rows, F&& f) {
  static_assert(kFewRows == 4);
  if (rows == 1) return f.template operator()<1>();
  if (rows == 2) return f.template operator()<2>();
  if (rows == 3) return f.template operator()<3>();
  f.template operator()<4>();
}

}  // namespace MF_CPU_NAMESPACE
