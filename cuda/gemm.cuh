#pragma once
// Products of matrices whose rows may be gathered, grouped by expert. Every op that multiplies goes through
// multiply() or weightGradient() below.
#include "core/backend.h"
#include "cuda/device.h"
#include "cuda/fault.h"

namespace mf::cuda {

// Rows of a matrix as a plan counts them. They lie `stride` elements apart in memory.
struct RowsOf {
  const void* data;
  int64_t width;
  RowMap map;
  const int32_t* order;
  int64_t topK;
  int64_t stride = width;
};

// Which rows belong to which expert; without offsets all to one.
struct Groups {
  int64_t experts, rows;
  const int32_t* offsets;
};

// out [rows, out] = x [rows, in] w[e] [in, out] (w[e] [out, in] with transposeW), then bias and epilogue.
struct Product {
  Groups groups;
  RowsOf x;
  const void* w;
  bool transposeW;
  RowsOf out;
  const void* bias;
  Epilogue epilogue;
  UnaryKind activation;
  void* preActivation;
};

// dw [e] [a.width, b.width] = sum over the expert's rows of a_row^T b_row, added to what is there if
// `accumulate`. sums: scratch for gradientParts() copies of dw in f32; without it the rows are not split.
struct WeightGradient {
  Groups groups;
  RowsOf a, b;
  void* dw;
  bool accumulate;
  float* sums = nullptr;
};
// Into how many parts the rows are split, by shape: 1 needs no scratch.
int64_t gradientParts(const Groups& groups, int64_t height, int64_t width);

template <typename T, typename Out>
void multiply(StreamHandle stream, const Product& product);
// What multiply() does where rows are few, by shape, whoever they belong to.
bool hasFewRows(const Product& product);
template <typename T, typename Out>
void multiplyFewRows(StreamHandle stream, const Product& product);
// What multiply() does with bf16 on sm_90a, where rows begin at multiples of 16 bytes.
bool takesWarpgroups(const Product& product);
template <typename Out>
void multiplyByWarpgroups(StreamHandle stream, const Product& product);
template <typename T, typename Out>
void weightGradient(StreamHandle stream, const WeightGradient& gradient);

template <>
void multiply<double, double>(StreamHandle stream, const Product& product);
template <>
void weightGradient<double, double>(StreamHandle stream, const WeightGradient& gradient);

}  // namespace mf::cuda
