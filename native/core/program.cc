#include "core/program.h"

namespace mf {

Program::Program(std::unique_ptr<Body> body, std::vector<Storage*> pool)
    : body_(std::move(body)), held_(std::move(pool)) {
  std::unordered_set<Storage*> held(held_.begin(), held_.end()), known, written;
  for (const std::unique_ptr<Command>& command : body_->commands) {
    for (Storage* storage : command->reads)
      if (known.insert(storage).second) body_->inputs.push_back(storage);
    for (Storage* storage : command->writes) {
      known.insert(storage);
      if (written.insert(storage).second) body_->outputs.push_back(storage);
    }
    for (const std::vector<Storage*>* used : {&command->reads, &command->writes})
      for (Storage* storage : *used) {
        if (!held.insert(storage).second) continue;
        ++storage->references;
        held_.push_back(storage);
      }
  }
}

Program::~Program() {
  for (Storage* storage : held_)
    if (--storage->references == 0) storage->owner->release(storage);
}

}  // namespace mf
