#pragma once
#include <cstdint>
#include <initializer_list>

#include "core/dtype.h"

namespace mf {

constexpr int kMaxRank = 6;

struct Shape {
  int rank = 0;
  int64_t dims[kMaxRank] = {};

  Shape() = default;
  Shape(std::initializer_list<int64_t> list) {
    for (int64_t d : list) dims[rank++] = d;
  }
  int64_t operator[](int i) const { return dims[i < 0 ? rank + i : i]; }
  int64_t numel() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
  bool operator==(const Shape& o) const {
    if (rank != o.rank) return false;
    for (int i = 0; i < rank; ++i)
      if (dims[i] != o.dims[i]) return false;
    return true;
  }
};

// What a kernel sees of a tensor: contiguous row-major memory. A null `data` stands for an absent optional
// argument.
struct View {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  explicit operator bool() const { return data != nullptr; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  int64_t numel() const { return shape.numel(); }
  int64_t size(int i) const { return shape[i]; }
  // Rows when the last dimension is taken as the row's content.
  int64_t rows() const { return shape.rank == 0 ? 1 : numel() / (shape[-1] == 0 ? 1 : shape[-1]); }
};

}  // namespace mf
