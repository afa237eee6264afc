#pragma once
// What one JavaScript environment (the main thread or a worker) owns: its streams, its tensors, its pending
// waits.
#include <napi.h>

#include <atomic>
#include <map>
#include <memory>
#include <unordered_map>

#include "core/context.h"
#include "napi/handles.h"

namespace mf::napi {

class Environment {
 public:
  explicit Environment(Napi::Env env);
  ~Environment();
  static Environment& of(napi_env env);  // made when it is first asked for

  Context context;
  HandleTable handles;

  // Errors are of these classes; `whyNoCuda`, if any, is the loader's reason for a binary without CUDA.
  void start(Napi::Array errorClasses, std::string whyNoCuda);
  // Throws the JavaScript error of this kind in env; returns null for the caller to return.
  napi_value throwError(const Error& error);

  // A promise that settles when the stream has come this far; `copy` runs on the stream's thread. `pinned`
  // stays referenced until then.
  napi_value wait(Stream& stream, std::vector<Storage*> reads, napi_value pinned, std::function<void()> copy);

  // Frees the tensors whose JavaScript objects are gone. Called on its own after every 64 MB of allocations.
  void sweep();
  void noteAllocations();

  // The most bytes that tensors may hold on each device, those not yet in use included.
  void setMemoryLimit(size_t bytes);

  // Programs by number. `owner`: the JavaScript object without which a program is freed some time.
  double addProgram(std::unique_ptr<Program> program, napi_value owner);
  const Program& program(double number) const;  // throws Error(Handle)
  void removeProgram(double number);            // a number that means nothing any more is ignored

 private:
  struct OwnedProgram {
    std::unique_ptr<Program> program;
    napi_ref owner;
  };
  struct Pending {
    napi_deferred deferred;
    napi_ref pinned;
  };

  static Environment& attach(napi_env env);  // leaves it to env's instance data
  static void onSignal(napi_env env, napi_value, void* context, void*);
  void settle();
  void sweepPrograms();
  void notify();
  bool callNoop();
  napi_value makeError(const Error& error);
  void shutDown();

  napi_env env_;
  napi_threadsafe_function signal_ = nullptr;
  std::atomic<bool> signalled_{false};
  std::unordered_map<uint64_t, Pending> pending_;
  uint64_t nextToken_ = 1;
  std::map<double, OwnedProgram> programs_;
  double nextProgram_ = 1;
  napi_ref noop_ = nullptr;
  napi_ref errorClasses_[6] = {};
  std::string whyNoCuda_;
  size_t memoryLimit_ = SIZE_MAX;
  size_t sweptAt_ = 0;    // allocator's running total at the last sweep
  int64_t reported_ = 0;  // bytes that V8 was told of
};

}  // namespace mf::napi
