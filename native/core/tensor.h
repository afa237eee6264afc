#pragma once
#include <cstddef>
#include <utility>

#include "core/allocator.h"
#include "core/view.h"

namespace mf {

// A counted reference to (part of) a storage. Belongs to the JavaScript thread.
class Tensor {
 public:
  Tensor() = default;
  // Takes over the one reference that allocate() gave.
  Tensor(Storage* storage, DType dtype, const Shape& shape, size_t byteOffset = 0)
      : storage_(storage), offset_(byteOffset), dtype_(dtype), shape_(shape) {}
  Tensor(const Tensor& o) : storage_(o.storage_), offset_(o.offset_), dtype_(o.dtype_), shape_(o.shape_) {
    if (storage_) ++storage_->references;
  }
  Tensor(Tensor&& o) noexcept
      : storage_(std::exchange(o.storage_, nullptr)),
        offset_(o.offset_),
        dtype_(o.dtype_),
        shape_(o.shape_) {}
  Tensor& operator=(Tensor o) noexcept {
    std::swap(storage_, o.storage_);
    offset_ = o.offset_;
    dtype_ = o.dtype_;
    shape_ = o.shape_;
    return *this;
  }
  ~Tensor() {
    if (storage_ && --storage_->references == 0) storage_->owner->release(storage_);
  }

  explicit operator bool() const { return storage_ != nullptr; }
  Storage* storage() const { return storage_; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t numel() const { return shape_.numel(); }
  size_t bytes() const { return static_cast<size_t>(numel()) * itemSize(dtype_); }
  size_t byteOffset() const { return offset_; }
  // Whether it is all of its storage.
  bool isWhole() const { return bytes() == storage_->bytes; }

  View view() const {
    View view;
    view.data = storage_ ? static_cast<char*>(storage_->data) + offset_ : nullptr;
    view.dtype = dtype_;
    view.shape = shape_;
    return view;
  }
  // The same storage seen with another shape, from `elements` further on.
  Tensor reinterpret(const Shape& shape, int64_t elements = 0) const {
    Tensor result(*this);
    result.shape_ = shape;
    result.offset_ += static_cast<size_t>(elements) * itemSize(dtype_);
    return result;
  }

 private:
  Storage* storage_ = nullptr;
  size_t offset_ = 0;
  DType dtype_ = DType::f32;
  Shape shape_;
};

}  // namespace mf
