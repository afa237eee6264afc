#pragma once
// Several elements that move through memory as one.
#include <cstdint>

#include "cuda/common.cuh"

namespace mf::cuda {

template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Vector {
  T at[kCount];
};

template <typename T>
constexpr int kVector = 16 / static_cast<int>(sizeof(T));  // elements of the widest access, 16 bytes

template <typename V, typename T>
MF_DEVICE V& asVector(T* p) {
  return *reinterpret_cast<V*>(p);
}
template <typename V, typename T>
MF_DEVICE const V& asVector(const T* p) {
  return *reinterpret_cast<const V*>(p);
}

}  // namespace mf::cuda
