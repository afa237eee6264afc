#pragma once
// Several neighbouring elements of a tensor at once: at most 16 bytes.
#include "cuda/vector.cuh"

namespace mf::cuda {

template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T elements[kWidth];
};
template <typename T>
using Pack16 = Pack<T, kVector<T>>;

template <int kWidth, typename T>
MF_DEVICE Pack<T, kWidth> loadPack(const T* from) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from);
}
template <typename T>
MF_DEVICE Pack16<T> loadVector(const T* from) {
  return loadPack<kVector<T>>(from);
}
template <typename T, int kWidth>
MF_DEVICE void storeVector(T* to, const Pack<T, kWidth>& pack) {
  *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
}

MF_HOST_DEVICE inline bool isVectorAligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

}  // namespace mf::cuda
