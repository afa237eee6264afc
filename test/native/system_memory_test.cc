// The memory that tensors get: blocks are aligned and never overlap, in whatever order they come and go.
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "check.h"
#include "core/allocator.h"

using mf::MemorySource;
using mf::systemMemory;

namespace {

struct Block {
  unsigned char* data;
  size_t bytes;
  unsigned char mark;

  bool isWhole() const {
    return std::all_of(data, data + bytes, [this](unsigned char byte) { return byte == mark; });
  }
};

}  // namespace

NATIVE_TEST(blocksOfMemoryAreAlignedAndNeverOverlap) {
  MemorySource& memory = systemMemory();
  std::mt19937 draw(7);
  std::vector<Block> blocks;
  const auto release = [&](size_t i) {
    CHECK(blocks[i].isWhole());
    memory.release(blocks[i].data, blocks[i].bytes);
    blocks[i] = blocks.back();
    blocks.pop_back();
  };
  for (int step = 0; step < 4000; ++step) {
    if (blocks.size() == 60 || (!blocks.empty() && draw() % 3 == 0)) release(draw() % blocks.size());
    // From a byte to 4 MB, so to both sides of a huge page, and on its edge.
    const uint32_t number = static_cast<uint32_t>(draw());
    const size_t bytes =
        number % 50 == 0 ? (size_t{2} << 20) - number % 3 : 1 + (number >> 10 >> number % 22);
    auto* data = static_cast<unsigned char*>(memory.allocate(bytes));
    CHECK(data != nullptr);
    CHECK(reinterpret_cast<uintptr_t>(data) % 64 == 0);
    const Block block{data, bytes, static_cast<unsigned char>(step)};
    std::fill_n(data, bytes, block.mark);
    blocks.push_back(block);
  }
  while (!blocks.empty()) release(blocks.size() - 1);
}
