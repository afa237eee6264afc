#include "core/stream.h"

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

}  // namespace

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
  if (closed_ || !waitForRoom()) return;
  if (!failOp_.empty() && failOp_ == command->op) {
    command->inject = true;
    failOp_.clear();
  }
  ring_[tail_ % kCapacity] = std::move(command);
  published_.store(++tail_, std::memory_order_release);
  published_.notify_one();
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
      if (profile_)
        profile_->time(command->op, [&] { execute(*command); });
      else
        execute(*command);
      command.reset();
      done_.store(++head, std::memory_order_release);
      done_.notify_one();
    }
    if (stop_.load(std::memory_order_acquire)) return;
  }
}

void Stream::execute(Command& command) {
  std::shared_ptr<const Error> error;
  for (const Storage* storage : command.reads)
    if (storage->poison) {
      error = storage->poison;
      break;
    }
  if (!error) {
    try {
      if (command.inject) throw Error(ErrorKind::Kernel, "failure injected by a test");
      command.run(*backend_);
    } catch (const std::exception& e) {
      const auto* known = dynamic_cast<const Error*>(&e);
      const bool memory = known && known->kind() == ErrorKind::Memory;
      error = std::make_shared<const Error>(memory ? ErrorKind::Memory : ErrorKind::Kernel,
                                            std::string(command.op) + ": " + e.what());
    }
  }
  for (Storage* storage : command.writes) storage->poison = error;
  command.done(error);
}

}  // namespace mf
