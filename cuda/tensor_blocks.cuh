#pragma once
// One launch over the elements of many tensors: their list travels in the kernel's parameters, so a long list
// takes a few launches.
#include <vector>

#include "cuda/pack.cuh"
#include "cuda/parallel.cuh"

namespace mf::cuda {

constexpr int kTensorsPerLaunch = 64;

// Tensors of one dtype combination; Item holds a tensor's pointers.
template <typename Item>
struct TensorList {
  int count;
  int64_t firstBlock;                           // of the first tensor, among the blocks of all tensors
  int64_t blocksBefore[kTensorsPerLaunch + 1];  // of each tensor, from firstBlock on
  int64_t numel[kTensorsPerLaunch];
  Item items[kTensorsPerLaunch];
};

// Calls f(item, begin, end, block) in a block of threads for every part of the kTensorBlock elements of every
// tensor's blocks.
template <int kParts, typename Item, typename F>
MF_KERNEL void tensorBlockKernel(TensorList<Item> list, F f) {
  const int64_t block = blockId();
  int t = 0;
  while (block >= list.blocksBefore[t + 1]) ++t;
  constexpr int64_t kPart = kTensorBlock / kParts;
  const int64_t begin = (block - list.blocksBefore[t]) * kTensorBlock + blockIdY() * kPart;
  const int64_t end = minimum(list.numel[t], begin + kPart);
  if (begin < end) f(list.items[t], begin, end, list.firstBlock + block);
}

// Calls f.template operator()<kWidth>(i) for the elements i to i + kWidth - 1 of [begin, end), `begin` being
// a multiple of kWidth; by one element where tensors are not aligned and at the end.
template <int kWidth, typename F>
MF_DEVICE void forBlockPacks(int64_t begin, int64_t end, bool aligned, F f) {
  const int64_t packsEnd = aligned ? begin + (end - begin) / kWidth * kWidth : begin;
  for (int64_t i = begin + threadId() * kWidth; i < packsEnd; i += int64_t{blockThreads()} * kWidth)
    f.template operator()<kWidth>(i);
  for (int64_t i = packsEnd + threadId(); i < end; i += blockThreads()) f.template operator()<1>(i);
}

// tensors[i] with item(i), of those for which wanted(i) holds.
template <typename Item, int kParts = 1, typename F, typename Wanted, typename MakeItem>
void forTensorBlocks(StreamHandle stream, const std::vector<View>& tensors, Wanted wanted, MakeItem item,
                     const F& f) {
  TensorList<Item> list{};
  int64_t blocks = 0;
  const auto flush = [&] {
    launch(tensorBlockKernel<kParts, Item, F>, {list.blocksBefore[list.count], kParts}, kThreads, 0, stream,
           list, f);
    list = {};
  };
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t own = ceilDiv(tensors[i].numel(), kTensorBlock);
    if (wanted(i) && own > 0) {
      // Blocks are numbered through the whole list: a gap ends the launch.
      const bool gap = list.count > 0 && list.firstBlock + list.blocksBefore[list.count] != blocks;
      if (gap || list.count == kTensorsPerLaunch) flush();
      if (list.count == 0) list.firstBlock = blocks;
      list.items[list.count] = item(i);
      list.numel[list.count] = tensors[i].numel();
      list.blocksBefore[list.count + 1] = list.blocksBefore[list.count] + own;
      ++list.count;
    }
    blocks += own;
  }
  flush();
}

}  // namespace mf::cuda
