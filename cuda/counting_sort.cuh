#pragma once
// A stable counting sort in two launches, or one where a single block does it: each block counts the keys of
// its own rows; then it places them behind those of the blocks before it.
#include "cuda/parallel.cuh"

namespace mf::cuda {

constexpr int64_t kMostSortBlocks = 512;

// How rows are dealt to blocks of kThreads; those of a unit stay together.
struct SortBlocks {
  int64_t rows, count;
  SortBlocks(int64_t units, int64_t unitRows) {
    const int64_t each = maximum(ceilDiv(kThreads, unitRows), ceilDiv(units, kMostSortBlocks));
    rows = each * unitRows;
    count = maximum(int64_t{1}, ceilDiv(units, each));  // without rows there are offsets all the same
  }
};

// Rows has key(row), of [0, E), place(row, sorted) and begins(key, sorted).
template <typename Rows>
struct Sort {
  Rows rows;
  int64_t R, E, blockRows, blocks;
  int32_t* counts;  // [blocks, E], of more than one block

  MF_DEVICE int64_t begin() const { return blockId() * blockRows; }
  MF_DEVICE int64_t end() const { return minimum(R, begin() + blockRows); }
};

// Of each key, in shared memory: rows before the block's, rows in all (while a block counts: its own), and
// where its next row goes. Several threads may add up the first two, in columns of their own.
struct SortMemory {
  SharedSpan<int32_t> before, all, next;
  int columns;
  MF_HOST_DEVICE static int columnsOf(int64_t E) {
    return static_cast<int>(maximum(int64_t{1}, kThreads / E) * E);
  }
  static size_t bytes(int64_t E) {
    return (2 * static_cast<size_t>(columnsOf(E)) + static_cast<size_t>(E)) * sizeof(int32_t) + 48;
  }
  MF_DEVICE static SortMemory take(int64_t E) {
    DynamicShared memory;
    const int columns = columnsOf(E);
    const SharedSpan<int32_t> before = memory.take<int32_t>(columns), all = memory.take<int32_t>(columns);
    return {before, all, memory.take<int32_t>(static_cast<int>(E)), columns};
  }
  MF_DEVICE void clear() const {
    for (int i = threadId(); i < columns; i += kThreads) before[i] = all[i] = 0;
    syncThreads();
  }
};

template <typename Rows>
MF_DEVICE void placeRows(const Sort<Rows>& sort, const SortMemory& memory) {
  MF_SHARED(int32_t, keys, kThreads);
  if (threadId() == 0) {
    int32_t offset = 0;
    for (int e = 0; e < static_cast<int>(sort.E); ++e) {
      memory.next[e] = offset + memory.before[e];
      if (blockId() == 0) sort.rows.begins(e, offset);
      offset += memory.all[e];
    }
    if (blockId() == 0) sort.rows.begins(static_cast<int32_t>(sort.E), offset);
  }
  for (int64_t first = sort.begin(); first < sort.end(); first += kThreads) {
    const int64_t r = first + threadId();
    const int32_t own = r < sort.end() ? sort.rows.key(r) : -1;
    keys[threadId()] = own;
    syncThreads();
    int32_t rank = 0, total = 0;  // among the rows of the same key
    for (int i = 0; i < kThreads; ++i) {
      const int32_t same = keys[i] == own;
      total += same;
      if (i < threadId()) rank += same;
    }
    const int32_t sorted = own < 0 ? 0 : memory.next[own] + rank;
    syncThreads();
    if (own < 0) continue;
    sort.rows.place(r, sorted);
    if (rank == total - 1) memory.next[own] = sorted + 1;
  }
}

// Behind the counting of a block's rows.
template <typename Rows>
MF_DEVICE void finishCounting(const Sort<Rows>& sort, const SortMemory& memory) {
  syncThreads();
  if (sort.blocks == 1) return placeRows(sort, memory);
  for (int e = threadId(); e < static_cast<int>(sort.E); e += kThreads)
    sort.counts[blockId() * sort.E + e] = memory.all[e];
}

template <typename Rows>
MF_KERNEL void countKernel(Sort<Rows> sort) {
  const SortMemory memory = SortMemory::take(sort.E);
  memory.clear();
  for (int64_t r = sort.begin() + threadId(); r < sort.end(); r += kThreads)
    atomicIncrement(memory.all.at(sort.rows.key(r)));
  finishCounting(sort, memory);
}

template <typename Rows>
MF_KERNEL void placeKernel(Sort<Rows> sort) {
  const SortMemory memory = SortMemory::take(sort.E);
  const int E = static_cast<int>(sort.E), groups = memory.columns / E;
  for (int i = threadId(); i < memory.columns; i += kThreads) {
    int32_t before = 0, all = 0;
    for (int64_t block = i / E; block < sort.blocks; block += groups) {
      const int32_t count = sort.counts[block * E + i % E];
      all += count;
      if (block < blockId()) before += count;
    }
    memory.before[i] = before;
    memory.all[i] = all;
  }
  syncThreads();
  for (int e = threadId(); e < E; e += kThreads)
    for (int group = 1; group < groups; ++group) {
      memory.before[e] += memory.before[group * E + e];
      memory.all[e] += memory.all[group * E + e];
    }
  syncThreads();
  placeRows(sort, memory);
}

// The second launch, where there is one.
template <typename Rows>
void placeSorted(StreamHandle stream, const Sort<Rows>& sort) {
  if (sort.blocks > 1)
    launch(placeKernel<Rows>, {sort.blocks}, kThreads, SortMemory::bytes(sort.E), stream, sort);
}
template <typename Rows>
void sortRows(StreamHandle stream, const Sort<Rows>& sort) {
  launch(countKernel<Rows>, {sort.blocks}, kThreads, SortMemory::bytes(sort.E), stream, sort);
  placeSorted(stream, sort);
}

}  // namespace mf::cuda
