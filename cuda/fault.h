#pragma once
// What a kernel found wrong with its data: the first thread to find something fills in the record.
#include <cstdint>
#include <string>

namespace mf::cuda {

enum class FaultKind : int {
  None,
  Id,         // embedding: id `value` at `position`, limit V
  Label,      // cross-entropy: label `value` at `position`, limit V
  Expert,     // router: `value`, limit E
  Offset,     // a plan's offsets[position] is `value`
  Order,      // a plan's order[position] is `value`, limit R
  LogitsNaN,  // sample: row `position`
  NoToken,    // sample: row `position`
  History,    // sample: `value`, limit V
  CacheRow,   // cacheAppend: first row `value`, limit: rows that may be the first
  Position    // attention: of the first query, limit: positions that may be
};

struct Fault {
  int taken;
  FaultKind kind;
  int64_t position, value, limit;
};

std::string describe(const Fault& fault);

}  // namespace mf::cuda
