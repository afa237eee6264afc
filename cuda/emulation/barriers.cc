#include "cuda/emulation/barriers.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "cuda/emulation/block.h"

namespace mf::cuda::emulation {
namespace {

constexpr uint64_t kMark = 0x7ff8'6d62'6172'7269;  // what a barrier holds, opaque to the program
constexpr int64_t kMostBytes = (int64_t{1} << 20) - 1;
constexpr int kMostArrivals = (1 << 20) - 1;
constexpr int kRowBytes = 128;

}  // namespace

void Barriers::reset() {
  barriers_.clear();
  flights_.clear();
  agents_ = 0;
}

void Barriers::init(void* address, int count, int line) {
  block_.checkShared(address, sizeof kMark, sizeof kMark);
  if (count < 1 || count > kMostArrivals) block_.fail("a barrier of " + std::to_string(count) + " arrivals");
  for (const auto& barrier : barriers_)
    if (barrier->address == address) block_.fail("a barrier is initialised twice");
  if (agents_ == RaceDetector::kMostBarriers) block_.fail("more than 64 barriers");
  block_.races().startClocks();
  std::memcpy(address, &kMark, sizeof kMark);
  const int thread = block_.thread().index;
  barriers_.push_back(std::make_unique<Barrier>(
      Barrier{address,
              block_.races().barrierAgent(agents_++),
              line,
              count,
              block_.races().stamp(thread),
              false,
              0,
              count,
              0,
              0,
              {},
              {},
              std::vector<int64_t>(static_cast<size_t>(block_.launch().threads), -2)}));
}

void Barriers::invalidate(void* address) {
  Barrier& barrier = usable(address, false);
  if (barrier.inFlight > 0) block_.fail("a barrier is invalidated while copies are on their way to it");
  std::erase_if(barriers_, [&](const auto& one) { return one.get() == &barrier; });
}

void Barriers::fenceInit() {
  for (const auto& barrier : barriers_)
    if (barrier->initialised.agent == block_.thread().index) barrier->fenced = true;
}

Barriers::Barrier& Barriers::find(void* address) {
  for (const auto& barrier : barriers_)
    if (barrier->address == address) return *barrier;
  block_.fail("no barrier was initialised at this address");
}

// Fails unless the calling thread, or a copy that it starts, may use the barrier.
Barriers::Barrier& Barriers::usable(void* address, bool byCopy) {
  Barrier& barrier = find(address);
  uint64_t mark = 0;
  std::memcpy(&mark, address, sizeof mark);
  if (mark != kMark) block_.fail("a barrier was overwritten");
  if (!block_.races().sees(block_.thread().index, barrier.initialised))
    block_.fail("a barrier is used by a thread that need not see its initialisation");
  if (byCopy && !barrier.fenced)
    block_.fail("a copy uses a barrier without fence.mbarrier_init after its initialisation");
  return barrier;
}

void Barriers::completeIfDone(Barrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  if (barrier.inFlight > 0)
    block_.fail("a phase of the barrier of line " + std::to_string(barrier.line) +
                " completes while copies are on their way to it");
  ++barrier.phase;
  barrier.pending = barrier.count;
  barrier.completed = std::exchange(barrier.arriving, Knowledge{});
  auto& seen = barrier.completed.seen;
  if (seen.size() <= static_cast<size_t>(barrier.agent)) seen.resize(static_cast<size_t>(barrier.agent) + 1);
  seen[static_cast<size_t>(barrier.agent)] = static_cast<uint32_t>(barrier.phase);
  block_.wake([&](Thread& thread) {
    if (thread.waitsFor != &barrier) return false;
    thread.waitsFor = nullptr;
    block_.races().known(thread.index).join(barrier.completed);
    return true;
  });
}

void Barriers::countDown(Barrier& barrier) {
  if (barrier.pending == 0)
    block_.fail("more arrivals than the " + std::to_string(barrier.count) + " that the barrier of line " +
                std::to_string(barrier.line) + " counts");
  --barrier.pending;
  completeIfDone(barrier);
}

void Barriers::arrive(void* address, int64_t bytes) {
  Barrier& barrier = usable(address, false);
  barrier.bytes += bytes;
  if (bytes < 0 || barrier.bytes > kMostBytes) block_.fail("a barrier expects too many bytes");
  const int thread = block_.thread().index;
  barrier.arriving.join(block_.races().known(thread));
  block_.races().release(thread);
  countDown(barrier);
}

void Barriers::wait(void* address, int parity, int line) {
  Barrier& barrier = usable(address, false);
  Thread& thread = block_.thread();
  int64_t& phase = barrier.waited[static_cast<size_t>(thread.index)];
  // A thread waits for one phase after the other; the first may be that before all.
  if (phase == -2)
    phase = parity == 0 ? 0 : -1;
  else if ((phase & 1) != parity)
    ++phase;
  if (barrier.phase > phase + 1)
    block_.fail("a wait for phase " + std::to_string(phase) + " of the barrier of line " +
                std::to_string(barrier.line) + ", which is in phase " + std::to_string(barrier.phase) +
                " already: its parity tells nothing");
  if (barrier.phase == phase + 1) {
    if (phase >= 0) block_.races().known(thread.index).join(barrier.completed);
    return;
  }
  thread.waitsFor = &barrier;
  block_.sleep(Thread::State::Phase, line);
}

// `arrive` runs now, or when no thread can run.
void Barriers::launchFlight(Barrier& barrier, std::function<void()> arrive) {
  if (!schedule().lateCopies) return arrive();
  ++barrier.inFlight;
  flights_.push_back({&barrier, barrier.phase, std::move(arrive)});
}

bool Barriers::completeOne() {
  if (flights_.empty()) return false;
  const size_t which = schedule().order == Schedule::Order::Forward   ? 0
                       : schedule().order == Schedule::Order::Reverse ? flights_.size() - 1
                                                                      : block_.random() % flights_.size();
  const auto at = flights_.begin() + static_cast<ptrdiff_t>(which);
  const Flight flight = std::move(*at);
  flights_.erase(at);
  --flight.barrier->inFlight;
  flight.arrive();
  return true;
}

void Barriers::arriveAfterCopies(void* address) {
  Barrier& barrier = usable(address, false);
  const Access by{barrier.agent, static_cast<uint32_t>(barrier.phase + 1)};
  std::vector<PendingCopy> copies = block_.takeCopies();
  for (const PendingCopy& copy : copies)
    block_.races().noteArrival(block_.offsetOf(copy.target), copy.bytes, by);
  launchFlight(barrier, [this, &barrier, copies = std::move(copies)] {
    for (const PendingCopy& copy : copies) copy.finish();
    countDown(barrier);
  });
}

// Row r of the box takes 128 bytes; its chunks of 16 bytes are exchanged by the bits 7 to 9 of the address.
void Barriers::copyBox(char* target, const TensorMap& map, int x, int y, int z) {
  const uint32_t address = block_.sharedAddress(target);
  for (int r = 0; r < map.boxRows; ++r)
    for (int c = 0; c < kRowBytes / 2; ++c) {
      const int64_t column = int64_t{x} + c, row = int64_t{y} + r;
      uint16_t value = 0;
      if (column >= 0 && column < map.width && row >= 0 && row < map.rows && z >= 0 && z < map.planes)
        std::memcpy(&value, map.data + z * map.planeBytes + row * map.rowBytes + column * 2, 2);
      uint32_t at = address + static_cast<uint32_t>(r * kRowBytes + c * 2);
      at ^= (at >> 7 & 7) << 4;
      std::memcpy(target + (at - address), &value, 2);
    }
}

void Barriers::copyTensor(void* target, const TensorMap& map, int x, int y, int z, void* address) {
  if (reinterpret_cast<uintptr_t>(&map) % 64 != 0) block_.fail("a tensor map is not aligned to 64 bytes");
  Barrier& barrier = usable(address, true);
  const auto bytes = static_cast<size_t>(map.boxRows) * kRowBytes;
  block_.checkShared(target, bytes, 1);
  if (block_.sharedAddress(target) % 1024 != 0)
    block_.fail("the target of a swizzled bulk copy is not aligned to 1024 bytes");
  const Access by{barrier.agent, static_cast<uint32_t>(barrier.phase + 1)};
  if (const Access* other =
          block_.races().noteBulkWrite(block_.offsetOf(target), bytes, block_.thread().index, by))
    block_.fail("a race in shared memory: a bulk copy overwrites what " + block_.nameOf(*other) +
                " may not have finished");
  std::memset(target, 0xff, bytes);  // until it arrives
  launchFlight(barrier, [this, &barrier, target, map, x, y, z, bytes] {
    copyBox(static_cast<char*>(target), map, x, y, z);
    barrier.bytes -= static_cast<int64_t>(bytes);
    if (barrier.bytes < -kMostBytes) block_.fail("more bytes arrive than a barrier can count");
    completeIfDone(barrier);
  });
}

std::string Barriers::outstanding() const {
  std::string text;
  for (const auto& barrier : barriers_)
    if (barrier->pending < barrier->count || barrier->bytes != 0)
      text += "; the barrier of line " + std::to_string(barrier->line) + " misses " +
              std::to_string(barrier->pending) + " arrivals and " + std::to_string(barrier->bytes) + " bytes";
  return text;
}

}  // namespace mf::cuda::emulation
