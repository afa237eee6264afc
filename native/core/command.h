#pragma once
#include <memory>
#include <vector>

#include "core/allocator.h"
#include "core/backend.h"

namespace mf {

// One piece of enqueued work. A command whose input is poisoned does not run; its outputs are then poisoned
// too.
struct Command {
  const char* op = "";
  std::vector<Storage*> reads, writes;
  bool inject = false;  // a test wants this one to fail

  virtual ~Command() = default;
  virtual void run(Backend& backend) = 0;
  virtual void done(const std::shared_ptr<const Error>&) {}  // after running, or instead of it
};

}  // namespace mf
