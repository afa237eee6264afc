#include "core/stream.h"

#include <algorithm>
#include <chrono>
#include <exception>

#include "core/pool.h"

namespace mf {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);

struct Wait final : Command {
  using Complete = std::function<void(const std::shared_ptr<const Error>&)>;
  std::function<void()> copy;
  Complete complete;
  void run(Backend& backend) override {
    backend.synchronize();
    if (copy) copy();
  }
  void done(const std::shared_ptr<const Error>& error) override { complete(error); }
};

// What a wait reports of an op that threw.
std::shared_ptr<const Error> asOpError(const std::exception& e, const char* op) {
  const auto* known = dynamic_cast<const Error*>(&e);
  const bool memory = known && known->kind() == ErrorKind::Memory;
  return std::make_shared<const Error>(memory ? ErrorKind::Memory : ErrorKind::Kernel,
                                       std::string(op) + ": " + e.what());
}

// Runs a command, if nothing it reads is poisoned, and poisons what it writes when it fails.
template <typename Run>
void runOrPoison(Command& command, Run&& run) {
  std::shared_ptr<const Error> error;
  for (const Storage* storage : command.reads)
    if (storage->poison) {
      error = storage->poison;
      break;
    }
  if (!error) {
    try {
      run();
    } catch (const std::exception& e) {
      error = asOpError(e, command.op);
    }
  }
  for (Storage* storage : command.writes) storage->poison = error;
  command.done(error);
}

// A recorded command is gone from the caches when its turn comes again.
void fetch(const Command* command) {
  constexpr size_t kLine = 64, kBytes = 512;  // about what the largest arguments take
  for (size_t i = 0; i < kBytes; i += kLine) __builtin_prefetch(reinterpret_cast<const char*>(command) + i);
}

}  // namespace

struct Stream::Replay final : Command {
  Stream& stream;
  std::shared_ptr<Program::Body> program;
  const Command* failing = nullptr;

  Replay(Stream& stream, std::shared_ptr<Program::Body> program)
      : stream(stream), program(std::move(program)) {
    op = "replay";
  }
  void run(Backend&) override { stream.executeAll(*program, failing); }
};

Stream::Stream(std::unique_ptr<Backend> backend, std::function<void()> notify, std::function<bool()> blocked,
               std::function<void()> sweep)
    : backend_(std::move(backend)),
      notify_(std::move(notify)),
      blocked_(std::move(blocked)),
      ring_(kCapacity),
      allocator_(
          backend_->memory(), [this] { drain(); }, std::move(sweep)),
      thread_(&Stream::loop, this) {}

Stream::~Stream() {
  close();
}

void Stream::enqueue(std::unique_ptr<Command> command) {
  if (recorded_) {
    recorded_->commands.push_back(std::move(command));
    return;
  }
  if (closed_ || !waitForRoom()) return;
  if (!failOp_.empty() && failOp_ == command->op) {
    command->inject = true;
    failOp_.clear();
  }
  ring_[tail_ % kCapacity] = std::move(command);
  published_.store(++tail_, std::memory_order_release);
  published_.notify_one();
}

void Stream::beginRecording() {
  if (recorded_) throw Error(ErrorKind::Value, "a program is being recorded already");
  if (!backend_->canReplay())
    throw Error(ErrorKind::Value, std::string("the device ") + backend_->name() + " cannot replay programs");
  recorded_ = std::make_unique<Program::Body>();
  allocator_.beginPool();
}

std::unique_ptr<Program> Stream::endRecording() {
  if (!recorded_) throw Error(ErrorKind::Value, "no program is being recorded");
  return std::make_unique<Program>(std::exchange(recorded_, nullptr), allocator_.endPool());
}

void Stream::cancelRecording() {
  if (recorded_) endRecording();
}

void Stream::replay(const Program& program) {
  if (recorded_) throw Error(ErrorKind::Value, "a program cannot be part of another");
  auto command = std::make_unique<Replay>(*this, program.body());
  if (!failOp_.empty()) {
    const auto& commands = program.body()->commands;
    const auto found = std::find_if(commands.begin(), commands.end(),
                                    [this](const auto& recorded) { return failOp_ == recorded->op; });
    if (found != commands.end()) {
      command->failing = found->get();
      failOp_.clear();
    }
  }
  enqueue(std::move(command));
}

bool Stream::waitForRoom() {
  if (tail_ - done_.load(std::memory_order_acquire) < kCapacity) return true;
  // Leave a good part of the queue to run before going on, so that a caller that never awaits sleeps rarely.
  for (uint32_t done = done_.load(std::memory_order_acquire); tail_ - done > kCapacity / 2;
       done = done_.load(std::memory_order_acquire))
    done_.wait(done, std::memory_order_acquire);
  if (blocked_()) return true;
  close();
  return false;
}

void Stream::signal(uint64_t token, std::vector<Storage*> reads) {
  read(token, std::move(reads), {});
}

void Stream::read(uint64_t token, std::vector<Storage*> reads, std::function<void()> copy) {
  auto wait = std::make_unique<Wait>();
  wait->op = "wait";
  wait->reads = std::move(reads);
  wait->copy = std::move(copy);
  wait->complete = [this, token](const std::shared_ptr<const Error>& error) { complete(token, error); };
  enqueue(std::move(wait));
}

void Stream::complete(uint64_t token, const std::shared_ptr<const Error>& error) {
  {
    std::lock_guard<std::mutex> guard(completionsLock_);
    completions_.push_back({token, error});
  }
  notify_();
}

std::vector<Completion> Stream::takeCompletions() {
  std::lock_guard<std::mutex> guard(completionsLock_);
  return std::exchange(completions_, {});
}

void Stream::drain() {
  if (closed_) return;
  for (uint32_t done = done_.load(std::memory_order_acquire); done != tail_;
       done = done_.load(std::memory_order_acquire))
    done_.wait(done, std::memory_order_acquire);
}

void Stream::close() {
  if (closed_) return;
  closed_ = true;
  stop_.store(true, std::memory_order_release);
  published_.fetch_add(1, std::memory_order_release);  // wakes the thread; it looks at stop_ first
  published_.notify_one();
  thread_.join();
  ring_.clear();
}

void Stream::loop() {
  setStopFlag(&stop_);
  uint32_t head = 0;
  for (;;) {
    uint32_t published = published_.load(std::memory_order_acquire);
    const auto idleSince = std::chrono::steady_clock::now();
    for (int spins = 1; published == head && !stop_.load(std::memory_order_acquire); ++spins) {
      if (spins % 64 == 0 && std::chrono::steady_clock::now() - idleSince > kSpin)
        published_.wait(head, std::memory_order_acquire);
      published = published_.load(std::memory_order_acquire);
    }
    while (head != published) {
      if (stop_.load(std::memory_order_acquire)) return;
      std::unique_ptr<Command> command = std::move(ring_[head % kCapacity]);
      execute(*command);
      command.reset();
      done_.store(++head, std::memory_order_release);
      done_.notify_one();
    }
    if (stop_.load(std::memory_order_acquire)) return;
  }
}

void Stream::execute(Command& command) {
  const auto run = [&] {
    if (command.inject) throw Error(ErrorKind::Kernel, "failure injected by a test");
    command.run(*backend_);
  };
  runOrPoison(command, [&] {
    if (profile_)
      profile_->time(command.op, run);
    else
      run();
  });
}

// Runs commands until one fails, whose outputs it poisons; returns how many are dealt with. What the program
// reads from outside is not poisoned. Nothing is asked of what each command reads and writes: in a large
// model those records are gone from the caches at every replay.
size_t Stream::runUntilFailure(const Program::Body& program) {
  const auto& commands = program.commands;
  size_t done = 0;
  try {
    for (; done < commands.size(); ++done) {
      if (stop_.load(std::memory_order_acquire)) return commands.size();
      if (done + 2 < commands.size()) fetch(commands[done + 2].get());
      commands[done]->run(*backend_);
      commands[done]->done(nullptr);
    }
    for (Storage* storage : program.outputs) storage->poison = nullptr;
  } catch (const std::exception& e) {
    const auto error = asOpError(e, commands[done]->op);
    for (size_t i = 0; i < done; ++i)
      for (Storage* storage : commands[i]->writes) storage->poison = nullptr;
    for (Storage* storage : commands[done]->writes) storage->poison = error;
    commands[done++]->done(error);
  }
  return done;
}

void Stream::executeAll(Program::Body& program, const Command* failing) {
  bool ran = false;
  const auto poisoned = [](const Storage* storage) { return storage->poison != nullptr; };
  const bool fails = failing || std::any_of(program.inputs.begin(), program.inputs.end(), poisoned);
  const auto run = [&] {
    ran = true;
    for (size_t i = fails || profile_ ? 0 : runUntilFailure(program); i < program.commands.size(); ++i) {
      if (stop_.load(std::memory_order_acquire)) return;
      Command& command = *program.commands[i];
      command.inject = &command == failing;
      execute(command);
    }
  };
  if (fails) return run();
  std::shared_ptr<const Error> error;
  try {
    backend_->replay(program.captured, run);
  } catch (const std::exception& e) {
    error = asOpError(e, "replay");
  }
  // A capture without an op that failed must not be launched: the next run captures anew.
  if (ran && std::any_of(program.outputs.begin(), program.outputs.end(), poisoned)) program.captured.reset();
  if (ran && !error) return;
  for (Storage* storage : program.outputs) storage->poison = error;
}

}  // namespace mf
