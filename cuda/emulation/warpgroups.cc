#include "cuda/emulation/warpgroups.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/dtype.h"
#include "cuda/emulation/block.h"

namespace mf::cuda::emulation {
namespace {

constexpr int kDepth = 16, kRows = 64, kWarpRows = 16, kWarps = 4;
constexpr int kChunk = 8;  // elements in 16 bytes, the unit of every layout
constexpr int kRegisters = 65536;
constexpr uint32_t kNotYet = 0xffffffffu;

bool operator==(const Multiplication& x, const Multiplication& y) {
  return x.a == y.a && x.b == y.b && x.n == y.n && x.transposeA == y.transposeA &&
         x.transposeB == y.transposeB && x.add == y.add;
}

// "Matrix Descriptor Format": every field without its lowest four bits.
struct Descriptor {
  uint32_t start, leading, stride, base, swizzle;
  explicit Descriptor(uint64_t bits)
      : start((bits & 0x3fff) << 4),
        leading((bits >> 16 & 0x3fff) << 4),
        stride((bits >> 32 & 0x3fff) << 4),
        base(bits >> 49 & 7),
        swizzle(bits >> 62) {}

  // Where a chunk lies. K-major: eight columns of row `outer`; MN-major: eight rows of column `k`. "Canonical
  // Layouts", 128-byte swizzling, in chunks: K-major ((8, m), 2k) : ((8, SBO), 1), MN-major
  // ((8, m), (8, k)) : ((1, LBO), (8, SBO)).
  uint32_t chunk(bool transposed, int outer, int k) const {
    const auto o = static_cast<uint32_t>(outer), d = static_cast<uint32_t>(k);
    uint32_t at = start;
    if (transposed)
      at += o / 64 * leading + d / 8 * stride + d % 8 * 128 + o % 64 / 8 * 16;
    else
      at += o / 8 * stride + o % 8 * 128 + d / 8 * 16;
    return at ^ (at >> 7 & 7) << 4;
  }
};

// f(address, outer, k) for all chunks of [outer, outer + count) x 16.
template <typename F>
void forChunks(const Descriptor& matrix, bool transposed, int outer, int count, F f) {
  for (int o = outer; o < outer + count; o += transposed ? kChunk : 1)
    for (int k = 0; k < kDepth; k += transposed ? 1 : kChunk) f(matrix.chunk(transposed, o, k), o, k);
}

}  // namespace

void Warpgroups::reset(int threads) {
  warps_ = std::vector<Warp>(static_cast<size_t>(threads / kWarp));
  for (Warp& warp : warps_) warp.registers = std::min(kRegisters / threads / 8 * 8, 248);
  asked_.assign(warps_.size() / kWarps + 1, {});
}

int Warpgroups::ownIndex() const {
  return block_.thread().index / kWarp;
}
Warpgroups::Warp& Warpgroups::own() {
  return warps_[static_cast<size_t>(ownIndex())];
}

bool Warpgroups::lastOfWarp(int line, const char* what) {
  if (warps_.size() < static_cast<size_t>((ownIndex() / kWarps + 1) * kWarps))
    block_.fail(std::string(what) + " in line " + std::to_string(line) + " by less than four warps");
  return block_.isLastLane();
}

void Warpgroups::fence(int line) {
  if (lastOfWarp(line, "wgmma.fence")) own().fenced = true;
  block_.meet(line);
}

void Warpgroups::multiply(const Multiplication& what, float* sums, int line) {
  Warp& warp = own();
  const int lane = block_.thread().index % kWarp;
  warp.of[lane] = sums;
  warp.asked[lane] = what;
  if (lastOfWarp(line, "wgmma.mma_async")) {
    if (!warp.fenced)
      block_.fail("wgmma.mma_async in line " + std::to_string(line) +
                  " without wgmma.fence since the sums could last be touched");
    auto& asked = asked_[static_cast<size_t>(ownIndex() / kWarps)];
    if (asked.size() == warp.issued) asked.push_back(what);
    for (const Multiplication& one : warp.asked)
      if (!(one == asked[warp.issued]))
        block_.fail("threads of a warpgroup multiply different matrices in line " + std::to_string(line));
    ++warp.issued;
    issue(warp, ownIndex());
  }
  block_.meet(line);
}

void Warpgroups::issue(Warp& warp, int index) {
  const Multiplication& what = warp.asked[0];
  for (const uint64_t bits : {what.a, what.b}) {
    const Descriptor matrix(bits);
    if (matrix.swizzle != 1 || matrix.base != 0)
      block_.fail("a matrix descriptor of another kind than 128-byte swizzling of a pattern at 1024 bytes");
  }
  checkReads(what, index);
  Sums& sums = sumsOf(warp, what.n);
  const Work work{what, &sums};
  if (schedule().lateCopies)
    ++sums.uses;
  else
    execute(work, index);
  warp.open.push_back(work);
}

void Warpgroups::checkReads(const Multiplication& what, int index) {
  const Warp& warp = warps_[static_cast<size_t>(index)];
  const auto clock = warp.retired + static_cast<uint32_t>(warp.groups.size()) + 1;
  RaceDetector::Checked checked;
  const auto note = [&](uint32_t address, int, int) {
    void* chunk = block_.sharedAt(address);
    block_.checkShared(chunk, 16, 1);
    bool unfenced = false;
    const Access* other =
        block_.races().noteBulkRead(block_.offsetOf(chunk), index, clock, checked, unfenced);
    if (!other) return;
    block_.fail(unfenced
                    ? "a matrix was written by " + block_.nameOf(*other) + " without fence.proxy.async since"
                    : "a race in shared memory: a product reads what " + block_.nameOf(*other) +
                          " writes, without a barrier between");
  };
  forChunks(Descriptor(what.a), what.transposeA, index % kWarps * kWarpRows, kWarpRows, note);
  forChunks(Descriptor(what.b), what.transposeB, 0, what.n, note);
}

Warpgroups::Sums& Warpgroups::sumsOf(Warp& warp, int n) {
  for (const auto& sums : warp.sums)
    if (sums->of[0] == warp.of[0]) {
      if (sums->n != n || !std::equal(warp.of, warp.of + kWarp, sums->of))
        block_.fail("sums of a product on its way are used in another shape");
      return *sums;
    }
  const auto count = static_cast<size_t>(n / 2);
  auto sums = std::make_unique<Sums>();
  std::copy(warp.of, warp.of + kWarp, sums->of);
  sums->n = n;
  sums->uses = 0;
  sums->values.resize(kWarp * count);
  for (size_t lane = 0; lane < kWarp; ++lane) {
    std::memcpy(sums->values.data() + lane * count, sums->of[lane], count * sizeof(float));
    std::memset(static_cast<void*>(sums->of[lane]), 0xff, count * sizeof(float));
  }
  warp.sums.push_back(std::move(sums));
  return *warp.sums.back();
}

// "Matrix Fragments for wgmma.mma_async.m64nNk16": a warp has 16 rows; row g + 8 (i / 2 % 2) and column
// 8 (i / 4) + 2 t + i % 2 are sum i of lane 4 g + t.
void Warpgroups::execute(const Work& work, int index) {
  const Multiplication& what = work.what;
  const int first = index % kWarps * kWarpRows;
  float a[kWarpRows][kDepth];
  std::vector<float> b(static_cast<size_t>(kDepth * what.n)), sums(static_cast<size_t>(what.n));
  const auto load = [&](uint32_t address, auto put) {
    bf16 chunk[kChunk];
    std::memcpy(chunk, block_.sharedAt(address), sizeof chunk);
    for (int i = 0; i < kChunk; ++i) put(i, static_cast<float>(chunk[i]));
  };
  forChunks(Descriptor(what.a), what.transposeA, first, kWarpRows, [&](uint32_t address, int m, int k) {
    load(address, [&](int i, float x) {
      a[m - first + (what.transposeA ? i : 0)][k + (what.transposeA ? 0 : i)] = x;
    });
  });
  forChunks(Descriptor(what.b), what.transposeB, 0, what.n, [&](uint32_t address, int n, int k) {
    load(address, [&](int i, float x) {
      b[static_cast<size_t>((k + (what.transposeB ? 0 : i)) * what.n + n + (what.transposeB ? i : 0))] = x;
    });
  });
  for (int m = 0; m < kWarpRows; ++m) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (int k = 0; k < kDepth; ++k)
      for (int n = 0; n < what.n; ++n)
        sums[static_cast<size_t>(n)] += a[m][k] * b[static_cast<size_t>(k * what.n + n)];
    for (int n = 0; n < what.n; ++n) {
      const int lane = m % 8 * 4 + n % 8 / 2, i = n / 8 * 4 + m / 8 * 2 + n % 2;
      float& value = work.sums->values[static_cast<size_t>(lane * (what.n / 2) + i)];
      value = (what.add ? value : 0.0f) + sums[static_cast<size_t>(n)];
    }
  }
}

void Warpgroups::commit(int line) {
  if (lastOfWarp(line, "wgmma.commit_group")) {
    own().groups.push_back(std::move(own().open));
    own().open.clear();
  }
  block_.meet(line);
}

void Warpgroups::wait(int pending, int line) {
  if (lastOfWarp(line, "wgmma.wait_group")) {
    Warp& warp = own();
    block_.races().startClocks();
    while (warp.groups.size() > static_cast<size_t>(pending)) {
      for (const Work& work : warp.groups.front()) {
        if (work.sums->uses == 0) continue;  // done at once
        execute(work, ownIndex());
        --work.sums->uses;
      }
      warp.groups.pop_front();
      ++warp.retired;
    }
    const auto agent = static_cast<size_t>(block_.races().warpAgent(ownIndex()));
    for (int lane = 0; lane < kWarp; ++lane)
      block_.races().known(ownIndex() * kWarp + lane).seen[agent] = warp.retired;
    deliver(warp);
    warp.fenced = false;
  }
  block_.meet(line);
}

// Gives the threads the sums that no product on its way adds to.
void Warpgroups::deliver(Warp& warp) {
  std::erase_if(warp.sums, [&](const std::unique_ptr<Sums>& sums) {
    const auto uses = [&](const std::vector<Work>& works) {
      return std::any_of(works.begin(), works.end(),
                         [&](const Work& work) { return work.sums == sums.get(); });
    };
    if (uses(warp.open) || std::any_of(warp.groups.begin(), warp.groups.end(), uses)) return false;
    const auto count = static_cast<size_t>(sums->n / 2);
    for (size_t lane = 0; lane < kWarp; ++lane) {
      for (size_t i = 0; i < count; ++i) {
        uint32_t bits = 0;
        std::memcpy(&bits, sums->of[lane] + i, sizeof bits);
        if (bits != kNotYet) block_.fail("sums were written before wgmma.wait_group");
      }
      std::memcpy(sums->of[lane], sums->values.data() + lane * count, count * sizeof(float));
    }
    return true;
  });
}

void Warpgroups::setRegisters(int count, bool raise, int line) {
  if (lastOfWarp(line, "setmaxnreg")) {
    Warp& warp = own();
    if (count < 24 || count > 256 || count % 8 != 0)
      block_.fail("setmaxnreg " + std::to_string(count) + ", expected a multiple of 8 from 24 to 256");
    if (raise ? count < warp.registers : count > warp.registers)
      block_.fail("setmaxnreg " + std::to_string(count) + " in the wrong direction from " +
                  std::to_string(warp.registers));
    warp.registers = count;
  }
  block_.meet(line);
}

bool Warpgroups::holds(int thread, const void* p, size_t bytes) const {
  const auto lane = static_cast<size_t>(thread % kWarp);
  const auto* begin = static_cast<const char*>(p);
  for (const auto& sums : warps_[static_cast<size_t>(thread / kWarp)].sums) {
    const auto* from = reinterpret_cast<const char*>(sums->of[lane]);
    if (begin < from + static_cast<size_t>(sums->n / 2) * sizeof(float) && from < begin + bytes) return true;
  }
  return false;
}

void Warpgroups::finish() const {
  int registers = 0;
  for (size_t index = 0; index < warps_.size(); ++index) {
    const Warp& warp = warps_[index];
    registers += warp.registers * kWarp;
    if (!warp.open.empty() || !warp.groups.empty()) block_.fail("a warp ends without wgmma.wait_group");
    if (warp.issued != asked_[index / kWarps].size())
      block_.fail("warps of a warpgroup have multiplied different numbers of matrices");
  }
  if (registers > kRegisters)
    block_.fail("setmaxnreg leaves " + std::to_string(registers) + " registers, at most 65536");
}

}  // namespace mf::cuda::emulation
