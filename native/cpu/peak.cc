#include "cpu/peak.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <new>

#include "core/allocator.h"
#include "cpu/parallel.h"
#include "cpu/simd.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace MF_CPU_NAMESPACE {
double measurePeak(PeakKind kind, int threads);

namespace {

constexpr int kChains = kVectorRegisters == 32 ? 24 : 12;
constexpr int64_t kSteps = 20000;
constexpr int64_t kReadBytes = int64_t{256} << 20;  // beyond any cache
volatile double keep;                               // so that no loop is dropped

struct Work {
  double size;  // operations or bytes per task
  double (*run)(char* memory);
};

template <typename Vec>
[[gnu::noinline]] double multiplyAdd(char*) {
  Vec sum[kChains];
  for (int c = 0; c < kChains; ++c)
    sum[c] = static_cast<float>(c) - Vec{};  // different, or the compiler computes one
  const Vec a = 0.5f - Vec{}, b = 1.0f - Vec{};
  for (int64_t i = 0; i < kSteps; ++i)
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c) sum[c] = sum[c] * a + b;
  for (int c = 1; c < kChains; ++c) sum[0] += sum[c];
  return sum[0][0];
}

#if defined(__AVX512F__)
[[gnu::noinline, gnu::target("avx512bf16")]] double multiplyAddPairs(char*) {
  __m512 sum[kChains];
  for (int c = 0; c < kChains; ++c) sum[c] = _mm512_set1_ps(static_cast<float>(c));
  const __m512bh ones = reinterpret_cast<__m512bh>(_mm512_set1_epi16(0x3f80));
  for (int64_t i = 0; i < kSteps; ++i)
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c) sum[c] = _mm512_dpbf16_ps(sum[c], ones, ones);
  for (int c = 1; c < kChains; ++c) sum[0] = _mm512_add_ps(sum[0], sum[c]);
  return sum[0][0];
}
#endif

constexpr int64_t kReadBlock = int64_t{1} << 20;

double readBlock(char* memory) {
  VecI sum[8] = {};
  for (int64_t i = 0; i < kReadBlock; i += 8 * kVectorBytes)
    for (int v = 0; v < 8; ++v) sum[v] += load<VecI>(memory + i + v * kVectorBytes);
  for (int v = 1; v < 8; ++v) sum[0] += sum[v];
  return sum[0][0];
}

double changeBlock(char* memory) {
  for (int64_t i = 0; i < kReadBlock; i += kVectorBytes) store(memory + i, load<VecI>(memory + i) + 1);
  return 0;
}

Work workOf(PeakKind kind) {
  const auto flops = [](int lanes) { return 2.0 * kSteps * kChains * lanes; };
#if defined(__AVX512F__)
  if (kind == PeakKind::Bf16 && __builtin_cpu_supports("avx512bf16"))
    return {flops(2 * kLanes), multiplyAddPairs};
#endif
  if (kind == PeakKind::F64) return {flops(kLanes / 2), multiplyAdd<VecD>};
  if (kind == PeakKind::Read) return {static_cast<double>(kReadBlock), readBlock};
  if (kind == PeakKind::ReadWrite) return {2.0 * kReadBlock, changeBlock};
  return {flops(kLanes), multiplyAdd<VecF>};
}

}  // namespace

double measurePeak(PeakKind kind, int threads) {
  const Work work = workOf(kind);
  const bool reads = kind == PeakKind::Read || kind == PeakKind::ReadWrite;
  const auto release = [](char* data) { systemMemory().release(data, kReadBytes); };
  std::unique_ptr<char, decltype(release)> memory(nullptr, release);
  if (reads) {
    memory.reset(static_cast<char*>(systemMemory().allocate(kReadBytes)));  // huge pages, as tensors have
    if (!memory) throw std::bad_alloc();
    std::fill_n(memory.get(), kReadBytes,
                char(1));  // pages of their own: untouched ones are all the same page
  }
  const int64_t tasks = reads ? kReadBytes / kReadBlock : int64_t{4} * threads;
  Pool& pool = Pool::instance();
  const int before = pool.threads();
  pool.setThreads(threads);
  double best = 0;
  for (int i = 0; i < (reads ? 4 : 24); ++i) {
    const auto start = std::chrono::steady_clock::now();
    forShares(tasks,
              [&](int64_t task) { keep = work.run(reads ? memory.get() + task * kReadBlock : nullptr); });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, work.size * static_cast<double>(tasks) / seconds.count());
  }
  pool.setThreads(before);
  return best;
}

}  // namespace MF_CPU_NAMESPACE
