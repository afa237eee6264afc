#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/allocator.h"
#include "core/backend.h"
#include "core/profile.h"

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

// The result of a wait: error is empty on success.
struct Completion {
  uint64_t token;
  std::shared_ptr<const Error> error;
};

// An in-order queue with a thread of its own. Methods belong to the JavaScript thread unless they say
// otherwise.
class Stream {
 public:
  // notify: called on the stream's thread when completions are ready; must not block.
  // blocked: called after waiting for room in the queue; returns false to close the stream.
  Stream(std::unique_ptr<Backend> backend, std::function<void()> notify, std::function<bool()> blocked,
         std::function<void()> sweep);
  ~Stream();  // closes
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Backend& backend() { return *backend_; }
  Allocator& allocator() { return allocator_; }

  void enqueue(std::unique_ptr<Command> command);
  // A completion with this token follows once everything before has run; it carries the poison of `reads`.
  void signal(uint64_t token, std::vector<Storage*> reads);
  // As signal, after copying from the stream: `copy` runs on the stream's thread if nothing in `reads` is
  // poisoned.
  void read(uint64_t token, std::vector<Storage*> reads, std::function<void()> copy);
  std::vector<Completion> takeCompletions();

  bool idle() const { return done_.load(std::memory_order_acquire) == tail_; }
  void drain();  // blocks until idle
  void close();  // drops what has not run, joins the thread; enqueue does nothing from then on
  bool closed() const { return closed_; }
  void failNext(const std::string& op) { failOp_ = op; }

 private:
  static constexpr uint32_t kCapacity = 1u << 14;

  void loop();
  void execute(Command& command);
  void complete(uint64_t token, const std::shared_ptr<const Error>& error);
  bool waitForRoom();

  std::unique_ptr<Backend> backend_;
  std::function<void()> notify_;
  std::function<bool()> blocked_;
  std::vector<std::unique_ptr<Command>> ring_;
  uint32_t tail_ = 0;
  bool closed_ = false;
  std::string failOp_;
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<uint32_t> published_{0};  // written by the JavaScript thread
  alignas(64) std::atomic<uint32_t> done_{0};       // written by the stream's thread
  alignas(64) std::mutex completionsLock_;
  std::vector<Completion> completions_;
  std::unique_ptr<Profile> profile_ = Profile::fromEnvironment();  // of the stream's thread
  Allocator allocator_;
  std::thread thread_;
};

}  // namespace mf
