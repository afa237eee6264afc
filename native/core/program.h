#pragma once
#include <memory>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/allocator.h"
#include "core/command.h"

namespace mf {

// Commands recorded on a stream, to run again and again in the order in which they were recorded. The memory
// they use is the program's as long as it lives. Belongs to the JavaScript thread; `Body` is shared with the
// runs in the queue.
class Program {
 public:
  struct Body {
    std::vector<std::unique_ptr<Command>> commands;
    std::vector<Storage*> inputs;    // read before the program writes them
    std::vector<Storage*> outputs;   // written by it; each once
    std::shared_ptr<void> captured;  // what a device made of the commands
  };

  // Takes over the references to the free blocks of the recording's pool.
  Program(std::unique_ptr<Body> body, std::vector<Storage*> pool);
  ~Program();  // blocks are free for work that is enqueued from now on
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  const std::shared_ptr<Body>& body() const { return body_; }
  const Allocator* allocator() const { return held_.empty() ? nullptr : held_.front()->owner; }

 private:
  std::shared_ptr<Body> body_;
  std::vector<Storage*> held_;  // one reference each
};

}  // namespace mf
