#include "cuda/emulation/block.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/pool.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define MF_FORBID(p, bytes) ASAN_POISON_MEMORY_REGION(p, bytes)
#define MF_PERMIT(p, bytes) ASAN_UNPOISON_MEMORY_REGION(p, bytes)
#else
#define MF_FORBID(p, bytes) static_cast<void>(p)
#define MF_PERMIT(p, bytes) static_cast<void>(p)
#endif

namespace mf::cuda::emulation {
namespace {

constexpr size_t kStack = size_t{256} << 10;
constexpr size_t kMostShared = size_t{227} << 10;  // of a block on sm_90; sm_80 has 163
constexpr size_t kMostStatic = size_t{48} << 10;
constexpr size_t kFirstAddress = 976;  // of the arena: dynamic memory begins at 1040, a multiple of 16 only
constexpr int kMostThreads = 1024;
constexpr char kFence = static_cast<char>(0xA5);

thread_local Block* runningBlock = nullptr;

size_t roundUp(size_t bytes, size_t to) {
  return (bytes + to - 1) / to * to;
}

Schedule fromEnvironment() {
  Schedule result;
  const char* order = std::getenv("MODULEFORMER_EMULATION_ORDER");
  const std::string name = order ? order : "";
  if (name == "reverse") result.order = Schedule::Order::Reverse;
  if (name.rfind("random:", 0) == 0) {
    result.order = Schedule::Order::Random;
    result.seed = std::strtoull(name.c_str() + 7, nullptr, 10);
  }
  const char* copies = std::getenv("MODULEFORMER_EMULATION_COPIES");
  result.lateCopies = !copies || std::string(copies) != "early";
  return result;
}

}  // namespace

Schedule& schedule() {
  static Schedule value = fromEnvironment();
  return value;
}

Block& Block::ofThisThread() {
  thread_local std::unique_ptr<Block> block(new Block);
  return *block;
}

Block* Block::running() {
  return runningBlock;
}

Block::Block() {
  capacity_ = kMostShared + 64 * kRedzone;
  arenaMemory_.resize(capacity_ + 64);
  // No better aligned than CUDA promises: 16 bytes.
  auto address = reinterpret_cast<uintptr_t>(arenaMemory_.data());
  arena_ = arenaMemory_.data() + (roundUp(address, 32) + 16 - address);
}

std::string Block::described(const std::string& what) const {
  const Index& grid = launch_->grid;
  return "emulation: " + what + " (block " + std::to_string(index_.x) + ", " + std::to_string(index_.y) +
         ", " + std::to_string(index_.z) + ", thread " + std::to_string(current_ ? current_->index : -1) +
         "; launch of [" + std::to_string(grid.x) + ", " + std::to_string(grid.y) + ", " +
         std::to_string(grid.z) + "] blocks of " + std::to_string(launch_->threads) + " threads with " +
         std::to_string(launch_->shared) + " bytes of shared memory)";
}

void Block::fail(const std::string& what) const {
  throw Error(ErrorKind::Kernel, described(what));
}

std::string Block::nameOf(const Access& access) const {
  if (access.agent < launch_->threads) return "thread " + std::to_string(access.agent);
  const int beyond = access.agent - races_.warpAgent(0);
  return beyond < 0 ? "a copy" : "a product of warp " + std::to_string(beyond);
}

// It must not throw: the compiler takes the hooks that call it for functions that don't.
void Block::noteAccess(const void* p, size_t bytes, bool write) {
  if (!current_ || failure_) return;
  const auto* address = static_cast<const char*>(p);
  std::string what;
  if (address < arena_ || address >= arena_ + used_) {
    if (!warpgroups_.holds(current_->index, p, bytes)) return;
    what = "sums of a product are touched before wgmma.wait_group";
  } else {
    const Access* other = races_.note(offsetOf(p), bytes, write, current_->index);
    if (!other) return;
    what = "a race in shared memory with " + nameOf(*other) + ", without a barrier between the " +
           (write ? "write" : "read") + " and the other access";
  }
  failure_ = std::make_exception_ptr(Error(ErrorKind::Kernel, described(what)));
}

void Block::prepareThreads() {
  const int count = launch_->threads;
  if (count <= 0 || count > kMostThreads || count % kWarp != 0)
    fail(std::to_string(count) + " threads, expected a multiple of 32 up to 1024");
  if (stackCount_ < count) {
    if (stacks_) {
      // What comes to lie there next is not the emulator's: the sanitizer's marks on dead frames must go.
      const size_t bytes = static_cast<size_t>(stackCount_) * kStack;
      MF_PERMIT(stacks_, bytes);
      munmap(stacks_, bytes);
    }
    void* memory = mmap(nullptr, static_cast<size_t>(count) * kStack, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no memory for stacks");
    stacks_ = static_cast<char*>(memory);
    stackCount_ = count;
  }
  while (threads_.size() < static_cast<size_t>(count)) threads_.push_back(std::make_unique<Thread>());
  warps_.resize(static_cast<size_t>(count / kWarp));
  for (Warp& warp : warps_) {
    warp.arrived = 0;
    warp.alive = kWarp;
    warp.slots.resize(2 * kWarp * kSlot);
  }
  for (int i = 0; i < count; ++i) {
    Thread& thread = *threads_[static_cast<size_t>(i)];
    thread.index = i;
    thread.state = Thread::State::Barrier;
    thread.exchanges = 0;
    thread.waitsFor = nullptr;
    thread.open.clear();
    thread.groups.clear();
    MF_PERMIT(stacks_ + static_cast<size_t>(i) * kStack, kStack);
    thread.fiber.prepare(stacks_ + static_cast<size_t>(i) * kStack, kStack, &Block::entry);
  }
  alive_ = count;
  atBarrier_ = 0;
}

void Block::prepareArena() {
  if (launch_->shared > kMostShared)
    fail(std::to_string(launch_->shared) + " bytes of shared memory, at most " + std::to_string(kMostShared));
  used_ = kRedzone + roundUp(launch_->shared, 16) + kRedzone;
  MF_PERMIT(arena_, capacity_);
  std::memset(arena_, kFence, used_);
  std::memset(arena_ + kRedzone, 0xff, launch_->shared);
  arrays_.clear();
  arrays_.push_back({nullptr, kRedzone, launch_->shared});
  MF_FORBID(arena_, kRedzone);
  MF_FORBID(arena_ + used_ - kRedzone, kRedzone);
  races_.reset(capacity_, launch_->threads);
  barriers_.reset();
  warpgroups_.reset(launch_->threads);
}

uint32_t Block::sharedAddress(const void* p) const {
  checkShared(p, 1, 1);
  return static_cast<uint32_t>(offsetOf(p) + kFirstAddress);
}

void* Block::sharedAt(uint32_t address) const {
  if (address < kFirstAddress || address - kFirstAddress >= used_) fail("an address outside shared memory");
  return arena_ + (address - kFirstAddress);
}

void* Block::sharedArray(const void* key, size_t bytes, size_t alignment) {
  for (const Array& array : arrays_)
    if (array.key == key) return arena_ + array.offset;
  size_t total = bytes;
  for (const Array& array : arrays_)
    if (array.key) total += array.bytes;
  if (total > kMostStatic) fail(std::to_string(total) + " bytes of static shared memory, at most 49152");
  if (alignment > 16) fail("a static shared array asks for more than 16-byte alignment");
  const size_t offset = used_;
  used_ += roundUp(bytes, 16) + kRedzone;
  if (used_ > capacity_) fail("out of shared memory");
  std::memset(arena_ + offset, kFence, used_ - offset);
  std::memset(arena_ + offset, 0xff, bytes);
  MF_FORBID(arena_ + used_ - kRedzone, kRedzone);
  arrays_.push_back({key, offset, bytes});
  return arena_ + offset;
}

void Block::checkShared(const void* p, size_t bytes, size_t alignment) const {
  if (reinterpret_cast<uintptr_t>(p) % alignment != 0)
    fail("a shared address is not aligned to " + std::to_string(alignment) + " bytes");
  const auto* begin = static_cast<const char*>(p);
  for (const Array& array : arrays_)
    if (begin >= arena_ + array.offset && begin + bytes <= arena_ + array.offset + array.bytes) return;
  fail("a shared address is outside its array");
}

void Block::checkRedzones() const {
  MF_PERMIT(arena_, capacity_);
  size_t from = 0;
  for (const Array& array : arrays_) {
    for (size_t i = from; i < array.offset; ++i)
      if (arena_[i] != kFence) fail("something was written outside a shared array");
    from = array.offset + array.bytes;
  }
  for (size_t i = from; i < used_; ++i)
    if (arena_[i] != kFence) fail("something was written outside a shared array");
}

void Block::run(const Launch& launch, Index index) {
  launch_ = &launch;
  index_ = index;
  current_ = nullptr;
  failure_ = nullptr;
  random_.seed(schedule().seed + 0x9E3779B97F4A7C15ull * static_cast<uint64_t>(index.x + 1) +
               static_cast<uint64_t>(index.y) * 31 + static_cast<uint64_t>(index.z) * 17);
  prepareThreads();
  prepareArena();
  ready_.clear();
  release(Thread::State::Barrier, 0, launch.threads);
  Block* outer = std::exchange(runningBlock, this);
  try {
    runThreads();
  } catch (...) {
    failure_ = std::current_exception();
  }
  current_ = nullptr;
  runningBlock = outer;
  if (failure_) {
    MF_PERMIT(arena_, capacity_);
    std::rethrow_exception(failure_);
  }
  checkRedzones();
}

void Block::runThreads() {
  while (!failure_ && alive_ > 0) {
    current_ = nullptr;
    if (ready_.empty()) {
      if (!barriers_.completeOne()) failStuck();
      continue;
    }
    current_ = ready_.front();
    ready_.pop_front();
    current_->fiber.resume();
  }
  if (failure_) return;
  current_ = nullptr;
  if (barriers_.anyInFlight()) fail("the block ends while copies are on their way");
  warpgroups_.finish();
}

void Block::entry() {
  Block& block = *runningBlock;
  Thread& thread = *block.current_;
  thread.fiber.entered();
  try {
    block.launch_->body();
    if (!thread.open.empty() || !thread.groups.empty()) block.waitCopies(0);
    block.threadEnded(thread);
  } catch (...) {
    block.failure_ = std::current_exception();
  }
  thread.state = Thread::State::Done;
  thread.fiber.leave();
}

// An exited thread no longer counts at barriers; a warp that lost a lane may exchange no more.
void Block::threadEnded(Thread& thread) {
  thread.state = Thread::State::Done;
  --alive_;
  --warps_[static_cast<size_t>(thread.index / kWarp)].alive;
  if (alive_ > 0 && atBarrier_ == alive_) {
    atBarrier_ = 0;
    races_.blockBarrier();
    release(Thread::State::Barrier, 0, launch_->threads);
  }
}

void Block::wait(Thread::State state, int line) {
  Thread& thread = *current_;
  thread.state = state;
  thread.line = line;
  thread.fiber.suspend();
}

// Makes the threads of [begin, end) in this state ready, in the order of the schedule.
void Block::release(Thread::State state, int begin, int end) {
  std::vector<Thread*> released;
  for (int i = begin; i < end; ++i)
    if (threads_[static_cast<size_t>(i)]->state == state)
      released.push_back(threads_[static_cast<size_t>(i)].get());
  makeReady(released);
}

void Block::wake(const std::function<bool(Thread&)>& chosen) {
  std::vector<Thread*> woken;
  for (int i = 0; i < launch_->threads; ++i) {
    Thread& thread = *threads_[static_cast<size_t>(i)];
    if (thread.state == Thread::State::Phase && chosen(thread)) woken.push_back(&thread);
  }
  makeReady(woken);
}

void Block::makeReady(std::vector<Thread*>& released) {
  if (schedule().order == Schedule::Order::Reverse) std::reverse(released.begin(), released.end());
  if (schedule().order == Schedule::Order::Random) std::shuffle(released.begin(), released.end(), random_);
  for (Thread* thread : released) {
    thread->state = Thread::State::Ready;
    ready_.push_back(thread);
  }
}

void Block::barrier(int line) {
  if (atBarrier_ > 0 && line != barrierLine_)
    fail("threads meet in different barriers, of lines " + std::to_string(barrierLine_) + " and " +
         std::to_string(line));
  barrierLine_ = line;
  ++atBarrier_;
  if (atBarrier_ < alive_) return wait(Thread::State::Barrier, line);
  atBarrier_ = 0;
  races_.blockBarrier();
  current_->state = Thread::State::Barrier;
  release(Thread::State::Barrier, 0, launch_->threads);
  current_->fiber.suspend();
}

const char* Block::exchange(const void* value, size_t bytes, int line) {
  Thread& thread = *current_;
  const int number = thread.index / kWarp;
  Warp& warp = warps_[static_cast<size_t>(number)];
  if (warp.alive < kWarp)
    fail("an exchange of the warp in line " + std::to_string(line) + " after a lane has ended");
  if (warp.arrived > 0 && warp.line != line)
    fail("lanes of a warp meet in different exchanges, of lines " + std::to_string(warp.line) + " and " +
         std::to_string(line));
  warp.line = line;
  char* slots = warp.slots.data() + (thread.exchanges++ % 2) * kWarp * kSlot;
  std::memcpy(slots + static_cast<size_t>(thread.index % kWarp) * kSlot, value, bytes);
  if (++warp.arrived < kWarp) {
    wait(Thread::State::Warp, line);
  } else {
    warp.arrived = 0;
    thread.state = Thread::State::Warp;
    release(Thread::State::Warp, number * kWarp, (number + 1) * kWarp);
    thread.fiber.suspend();
  }
  return slots;
}

bool Block::isLastLane() const {
  return warps_[static_cast<size_t>(current_->index / kWarp)].arrived == kWarp - 1;
}

void Block::syncWarp(int line) {
  if (isLastLane()) races_.warpBarrier(current_->index / kWarp);
  meet(line);
}

void PendingCopy::finish() const {
  if (arrived) return;
  std::memcpy(target, source, filled);
  std::memset(static_cast<char*>(target) + filled, 0, bytes - filled);
}

void Block::finishCopy(const PendingCopy& copy) {
  noteAccess(copy.target, copy.bytes, true);
  copy.finish();
}

void Block::copyAsync(PendingCopy copy) {
  checkShared(copy.target, copy.bytes, copy.bytes);
  if (copy.filled > 0 && reinterpret_cast<uintptr_t>(copy.source) % copy.bytes != 0)
    fail("the source of an asynchronous copy is not aligned");
  noteAccess(copy.target, copy.bytes, true);
  if (schedule().lateCopies) {
    std::memset(copy.target, 0xff, copy.bytes);  // until it arrives
  } else {
    copy.finish();
    copy.arrived = true;
  }
  current_->open.push_back(copy);
}

std::vector<PendingCopy> Block::takeCopies() {
  std::vector<PendingCopy> copies;
  for (const auto& group : current_->groups) copies.insert(copies.end(), group.begin(), group.end());
  copies.insert(copies.end(), current_->open.begin(), current_->open.end());
  current_->groups.clear();
  current_->open.clear();
  return copies;
}

void Block::commitCopies() {
  current_->groups.push_back(std::move(current_->open));
  current_->open.clear();
}

void Block::waitCopies(int pending) {
  Thread& thread = *current_;
  while (thread.groups.size() > static_cast<size_t>(pending)) {
    for (const PendingCopy& copy : thread.groups.front()) finishCopy(copy);
    thread.groups.pop_front();
  }
}

void Block::failStuck() const {
  std::string where;
  for (int i = 0; i < launch_->threads; ++i) {
    const Thread& thread = *threads_[static_cast<size_t>(i)];
    if (thread.state == Thread::State::Done) continue;
    where += " thread " + std::to_string(i) + " in line " + std::to_string(thread.line) + ",";
    if (where.size() > 200) break;
  }
  fail("threads wait for others that never come:" + where + barriers_.outstanding());
}

void run(const Launch& launch) {
  recordLaunch(launch);
  const int64_t blocks = int64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  Pool::instance().parallelFor(blocks, [&](int64_t block) {
    const Index index{static_cast<int>(block % launch.grid.x),
                      static_cast<int>(block / launch.grid.x % launch.grid.y),
                      static_cast<int>(block / launch.grid.x / launch.grid.y)};
    Block::ofThisThread().run(launch, index);
  });
}

}  // namespace mf::cuda::emulation
