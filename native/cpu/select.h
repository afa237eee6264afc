#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"

namespace mf::cpu {

struct InstructionSets {
  std::vector<std::string> built;      // in this binary, rising
  std::vector<std::string> supported;  // of those, what the processor has
  std::string chosen;
  bool bf16Dot;  // vdpbf16ps is used
};

// Chooses the widest supported set, or the one that MODULEFORMER_ISA names; throws Error(Value) if that is
// absent.
InstructionSets instructionSets();
std::unique_ptr<Backend> createBackend();

}  // namespace mf::cpu
