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

#include "core/command.h"
#include "core/profile.h"
#include "core/program.h"

namespace mf {

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

  // From here on commands are not enqueued but gathered for a program. Throws Error(Value) when the device's
  // ops cannot be replayed and inside a recording.
  void beginRecording();
  std::unique_ptr<Program> endRecording();
  void cancelRecording();
  bool recording() const { return recorded_ != nullptr; }
  void replay(const Program& program);  // enqueues one run

  bool idle() const { return done_.load(std::memory_order_acquire) == tail_; }
  void drain();  // blocks until idle
  void close();  // drops what has not run, joins the thread; enqueue does nothing from then on
  bool closed() const { return closed_; }
  void failNext(const std::string& op) { failOp_ = op; }

 private:
  static constexpr uint32_t kCapacity = 1u << 14;

  struct Replay;

  void loop();
  void execute(Command& command);
  void executeAll(Program::Body& program, const Command* failing);
  size_t runUntilFailure(const Program::Body& program);
  void complete(uint64_t token, const std::shared_ptr<const Error>& error);
  bool waitForRoom();

  std::unique_ptr<Backend> backend_;
  std::function<void()> notify_;
  std::function<bool()> blocked_;
  std::vector<std::unique_ptr<Command>> ring_;
  uint32_t tail_ = 0;
  bool closed_ = false;
  std::string failOp_;
  std::unique_ptr<Program::Body> recorded_;  // so far; null outside of a recording
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
