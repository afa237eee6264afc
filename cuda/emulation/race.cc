#include "cuda/emulation/race.h"

#include <algorithm>

namespace mf::cuda::emulation {
namespace {

constexpr int kLanes = 32;

void joinInto(std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  if (a.size() < b.size()) a.resize(b.size(), 0);
  for (size_t i = 0; i < b.size(); ++i) a[i] = std::max(a[i], b[i]);
}

bool isSame(const Access& a, const Access& b) {
  return a.agent == b.agent && a.clock == b.clock && a.blockEpoch == b.blockEpoch &&
         a.warpEpoch == b.warpEpoch;
}

}  // namespace

void Knowledge::join(const Knowledge& other) {
  joinInto(seen, other.seen);
  joinInto(fenced, other.fenced);
}

void RaceDetector::reset(size_t bytes, int threads) {
  shadow_.resize(bytes);
  touchedPages_.resize(bytes / kPage + 1);
  for (size_t page = 0; page < touchedPages_.size(); ++page) {
    if (!touchedPages_[page]) continue;
    touchedPages_[page] = 0;
    const auto begin = shadow_.begin() + static_cast<ptrdiff_t>(page * kPage);
    std::fill(begin, begin + static_cast<ptrdiff_t>(std::min(kPage, bytes - page * kPage)), Shadow{});
  }
  threads_ = threads;
  warps_ = static_cast<size_t>(threads / kLanes);
  blockEpoch_ = 0;
  warpEpoch_.assign(warps_, 0);
  clocks_ = bulk_ = false;
  touchedCells_.assign(bytes / kCell + 1, 0);
}

void RaceDetector::startClocks() {
  if (clocks_) return;
  clocks_ = true;
  const auto agents = static_cast<size_t>(threads_) + kMostBarriers + warps_;
  known_.resize(static_cast<size_t>(threads_));
  for (Knowledge& knowledge : known_) {
    knowledge.seen.assign(agents, 0);
    std::fill_n(knowledge.seen.begin(), threads_, 1);
    knowledge.fenced.assign(agents, 0);
  }
}

void RaceDetector::release(int thread) {
  if (clocks_) ++known(thread).seen[static_cast<size_t>(thread)];
}

void RaceDetector::fenceProxy(int thread) {
  startClocks();
  joinInto(known(thread).fenced, known(thread).seen);
  release(thread);  // what it writes from now on is not fenced
}

void RaceDetector::blockBarrier() {
  ++blockEpoch_;
  if (!clocks_) return;
  Knowledge all;
  for (const Knowledge& knowledge : known_) all.join(knowledge);
  for (int thread = 0; thread < threads_; ++thread) {
    known(thread) = all;
    release(thread);
  }
}

void RaceDetector::warpBarrier(int warp) {
  ++warpEpoch_[static_cast<size_t>(warp)];
  if (!clocks_) return;
  Knowledge all;
  for (int lane = 0; lane < kLanes; ++lane) all.join(known(warp * kLanes + lane));
  for (int lane = 0; lane < kLanes; ++lane) {
    known(warp * kLanes + lane) = all;
    release(warp * kLanes + lane);
  }
}

Access RaceDetector::stamp(int thread) const {
  const auto t = static_cast<size_t>(thread);
  return {thread, clocks_ ? known_[t].seen[t] : 0, blockEpoch_, warpEpoch_[t / kLanes]};
}

bool RaceDetector::sees(int thread, const Access& earlier) const {
  if (earlier.agent < 0 || earlier.agent == thread) return true;
  if (earlier.agent < threads_) {
    if (earlier.blockEpoch != blockEpoch_) return true;
    const int warp = thread / kLanes;
    if (earlier.agent / kLanes == warp && earlier.warpEpoch != warpEpoch_[static_cast<size_t>(warp)])
      return true;
  }
  return clocks_ && earlier.clock > 0 &&
         known_[static_cast<size_t>(thread)].seen[static_cast<size_t>(earlier.agent)] >= earlier.clock;
}

RaceDetector::Shadow& RaceDetector::touch(size_t offset) {
  touchedPages_[offset / kPage] = 1;
  touchedCells_[offset / kCell] = 1;
  return shadow_[offset];
}

// What a thread meets of the writes and reads beside the threads.
const Access* RaceDetector::noteInCell(size_t cell, bool write, int thread) {
  Access& last = bulkWrites_[cell];
  if (!sees(thread, last)) return &last;
  if (!write) return nullptr;
  for (size_t warp = 0; warp < warps_; ++warp) {
    read_ = {warpAgent(static_cast<int>(warp)), readsOf(cell)[warp]};
    if (read_.clock > 0 && !sees(thread, read_)) return &read_;
  }
  last = Access{};
  std::fill_n(readsOf(cell), warps_, 0);
  return nullptr;
}

const Access* RaceDetector::note(size_t offset, size_t bytes, bool write, int thread) {
  const size_t end = std::min(offset + bytes, shadow_.size());
  if (bulk_)
    for (size_t cell = offset / kCell; cell * kCell < end; ++cell)
      if (const Access* other = noteInCell(cell, write, thread)) return other;
  const Access access = stamp(thread);
  for (size_t i = offset; i < end; ++i) {
    Shadow& shadow = touch(i);
    if (!sees(thread, shadow.write)) return &shadow.write;
    if (write) {
      for (const Access& read : shadow.reads)
        if (!sees(thread, read)) return &read;
      shadow.write = access;
    } else {
      // Two readers stand for all of an epoch: a writer differs from one of them.
      Access* reads = shadow.reads;
      const bool first = reads[0].agent == thread || (reads[1].agent != thread && sees(thread, reads[0]));
      reads[first ? 0 : 1] = access;
    }
  }
  return nullptr;
}

void RaceDetector::noteArrival(size_t offset, size_t bytes, Access by) {
  for (size_t i = offset; i < offset + bytes; ++i) touch(i).write = by;
}

void RaceDetector::startBulk() {
  if (bulk_) return;
  bulk_ = true;
  bulkWrites_.assign(touchedCells_.size(), Access{});
  bulkReads_.assign(touchedCells_.size() * warps_, 0);
}

const Access* RaceDetector::noteBulkWrite(size_t offset, size_t bytes, int thread, Access by) {
  startBulk();
  for (size_t cell = offset / kCell; cell * kCell < offset + bytes; ++cell) {
    if (const Access* other = noteInCell(cell, true, thread)) return other;
    if (touchedCells_[cell]) {
      for (size_t i = cell * kCell; i < (cell + 1) * kCell; ++i) {
        const Shadow& shadow = shadow_[i];
        for (const Access* access : {&shadow.write, &shadow.reads[0], &shadow.reads[1]})
          if (!sees(thread, *access)) return access;
        shadow_[i] = Shadow{};
      }
      touchedCells_[cell] = 0;
    }
    bulkWrites_[cell] = by;
  }
  return nullptr;
}

const Access* RaceDetector::noteBulkRead(size_t offset, int warp, uint32_t clock, Checked& checked,
                                         bool& unfenced) {
  startClocks();
  startBulk();
  const size_t cell = offset / kCell;
  readsOf(cell)[static_cast<size_t>(warp)] = clock;
  const auto everyLane = [&](auto holds) {
    for (int thread = warp * kLanes; thread < (warp + 1) * kLanes; ++thread)
      if (!holds(thread)) return false;
    return true;
  };
  const Access& bulk = bulkWrites_[cell];
  if (!isSame(bulk, checked.bulk)) {
    if (!everyLane([&](int thread) { return sees(thread, bulk); })) return &bulk;
    checked.bulk = bulk;
  }
  if (!touchedCells_[cell]) return nullptr;
  for (size_t i = cell * kCell; i < (cell + 1) * kCell; ++i) {
    const Access& write = shadow_[i].write;
    if (write.agent < 0 || isSame(write, checked.byThread)) continue;
    if (!everyLane([&](int thread) { return sees(thread, write); })) return &write;
    unfenced = !everyLane([&](int thread) {
      return known(thread).fenced[static_cast<size_t>(write.agent)] >= std::max(write.clock, 1u);
    });
    if (unfenced) return &write;
    checked.byThread = write;
  }
  return nullptr;
}

}  // namespace mf::cuda::emulation
