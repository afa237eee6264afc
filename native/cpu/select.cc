#include "cpu/select.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "cpu/peak.h"

// MF_ISA_ENTRIES is MF_ISA_ENTRY(generic) MF_ISA_ENTRY(avx2) ...: the sets that the build made.
#define MF_ISA_ENTRY(isa)                         \
  namespace isa {                                 \
  Backend* create();                              \
  double measurePeak(PeakKind kind, int threads); \
  }
namespace mf::cpu {
MF_ISA_ENTRIES
#undef MF_ISA_ENTRY

namespace {

struct Entry {
  const char* name;
  Backend* (*create)();
  double (*measurePeak)(PeakKind, int);
};

#define MF_ISA_ENTRY(isa) Entry{#isa, isa::create, isa::measurePeak},
const Entry kEntries[] = {MF_ISA_ENTRIES};
#undef MF_ISA_ENTRY

bool supported(const char* name) {
#if defined(__x86_64__)
  if (std::strcmp(name, "avx2") == 0)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  if (std::strcmp(name, "avx512") == 0)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd");
#endif
  return std::strcmp(name, "generic") == 0;
}

const Entry& choose() {
  const char* wanted =
      std::getenv("MODULEFORMER_ISA");  // NOLINT(concurrency-mt-unsafe): before any thread starts
  const Entry* best = nullptr;
  for (const Entry& entry : kEntries)
    if (supported(entry.name) && (!wanted || !*wanted || std::strcmp(wanted, entry.name) == 0)) best = &entry;
  if (best) return *best;
  std::string message = std::string("MODULEFORMER_ISA is '") + (wanted ? wanted : "") + "', expected one of:";
  for (const Entry& entry : kEntries)
    if (supported(entry.name)) message += std::string(" ") + entry.name;
  throw Error(ErrorKind::Value, message);
}

}  // namespace

InstructionSets instructionSets() {
  InstructionSets sets;
  for (const Entry& entry : kEntries) {
    sets.built.push_back(entry.name);
    if (supported(entry.name)) sets.supported.push_back(entry.name);
  }
  sets.chosen = choose().name;
#if defined(__x86_64__)
  sets.bf16Dot = sets.chosen == "avx512" && __builtin_cpu_supports("avx512bf16");
#else
  sets.bf16Dot = false;
#endif
  return sets;
}

double measurePeak(PeakKind kind, int threads) {
  return choose().measurePeak(kind, threads);
}

std::unique_ptr<Backend> createBackend() {
  return std::unique_ptr<Backend>(choose().create());
}

}  // namespace mf::cpu
