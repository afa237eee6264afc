#pragma once
// One parallel loop over the elements of many tensors.
#include <algorithm>
#include <vector>

#include "core/pool.h"
#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {

// Calls body(block, tensor, begin, end) for every block of kTensorBlock elements of every tensor; blocks are
// numbered through the list. The body must not use threadScratch.
template <typename Body>
void forTensorBlocks(const std::vector<View>& tensors, Body body) {
  const int64_t count = static_cast<int64_t>(tensors.size());
  // first[t]: the number of tensor t's first block.
  int64_t* first = static_cast<int64_t*>(threadScratch(static_cast<size_t>(count + 1) * sizeof(int64_t)));
  first[0] = 0;
  for (int64_t t = 0; t < count; ++t)
    first[t + 1] = first[t] + (tensors[static_cast<size_t>(t)].numel() + kTensorBlock - 1) / kTensorBlock;
  Pool::instance().parallelFor(first[count], [&](int64_t block) {
    const int64_t tensor = std::upper_bound(first, first + count + 1, block) - first - 1;
    const int64_t begin = (block - first[tensor]) * kTensorBlock;
    const int64_t end = std::min(tensors[static_cast<size_t>(tensor)].numel(), begin + kTensorBlock);
    body(block, static_cast<size_t>(tensor), begin, end);
  });
}

}  // namespace MF_CPU_NAMESPACE
