#include "napi/environment.h"

#include "core/pool.h"
#include "cpu/select.h"
#ifdef MF_CUDA
#include "cuda/select.h"
#endif

namespace mf::napi {
namespace {

constexpr size_t kSweepEvery = size_t{64} << 20;
constexpr int64_t kReportEvery = int64_t{4} << 20;

napi_value noop(napi_env, napi_callback_info) {
  return nullptr;
}

// Bytes handed out on all devices.
size_t allocatedSoFar(const Context& context) {
  size_t total = 0;
  for (const auto& stream : context.streams)
    if (stream) total += stream->allocator().stats().total;
  return total;
}

std::unique_ptr<Backend> createCudaBackend([[maybe_unused]] const std::string& whyNoCuda) {
#ifdef MF_CUDA
  return cuda::createBackend();
#else
  throw Error(ErrorKind::Value, "device 'cuda' is not available: this addon was built without CUDA" +
                                    (whyNoCuda.empty() ? "" : "; " + whyNoCuda));
#endif
}

}  // namespace

Environment& Environment::attach(napi_env env) {
  Environment* self = std::make_unique<Environment>(env).release();
  napi_set_instance_data(
      env, self, [](napi_env, void* data, void*) { delete static_cast<Environment*>(data); }, nullptr);
  // Last in, first out: this runs before the thread-safe function and the instance data are finalised.
  napi_add_env_cleanup_hook(
      env, [](void* data) { static_cast<Environment*>(data)->shutDown(); }, self);
  return *self;
}

Environment& Environment::of(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return data ? *static_cast<Environment*>(data) : attach(env);
}

Environment::Environment(Napi::Env env) : env_(env) {
  napi_value name, function;
  napi_create_string_utf8(env, "moduleformer", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, onSignal,
                                  &signal_);
  napi_unref_threadsafe_function(env, signal_);
  napi_create_function(env, "noop", NAPI_AUTO_LENGTH, noop, nullptr, &function);
  napi_create_reference(env, function, 1, &noop_);
  const auto makeStream = [this](std::unique_ptr<Backend> backend) {
    auto stream = std::make_unique<Stream>(
        std::move(backend), [this] { notify(); }, [this] { return callNoop(); }, [this] { sweep(); });
    stream->allocator().setLimit(memoryLimit_);
    return stream;
  };
  context.streams[static_cast<int>(Device::Cpu)] = makeStream(cpu::createBackend());
  context.makeCuda = [this, makeStream] { return makeStream(createCudaBackend(whyNoCuda_)); };
}

Environment::~Environment() = default;

void Environment::shutDown() {
  for (auto& stream : context.streams)
    if (stream) stream->close();
  napi_release_threadsafe_function(signal_, napi_tsfn_abort);
}

void Environment::setMemoryLimit(size_t bytes) {
  memoryLimit_ = bytes;
  for (auto& stream : context.streams)
    if (stream) stream->allocator().setLimit(bytes);
}

void Environment::notify() {
  if (!signalled_.exchange(true)) napi_call_threadsafe_function(signal_, nullptr, napi_tsfn_nonblocking);
}

void Environment::onSignal(napi_env env, napi_value, void* context, void*) {
  if (!env) return;
  auto* self = static_cast<Environment*>(context);
  self->signalled_.store(false);
  self->settle();
}

// While a worker is being terminated every call into JavaScript fails: then the rest is only freed.
void Environment::settle() {
  bool alive = true;
  for (auto& stream : context.streams) {
    if (!stream) continue;
    for (const Completion& completion : stream->takeCompletions()) {
      const auto found = pending_.find(completion.token);
      if (found == pending_.end()) continue;
      const Pending pending = found->second;
      pending_.erase(found);
      if (pending.pinned) napi_delete_reference(env_, pending.pinned);
      if (!alive) continue;
      napi_value value = nullptr;
      if (completion.error) {
        value = makeError(*completion.error);
        alive = value && napi_reject_deferred(env_, pending.deferred, value) == napi_ok;
      } else {
        alive = napi_get_undefined(env_, &value) == napi_ok &&
                napi_resolve_deferred(env_, pending.deferred, value) == napi_ok;
      }
    }
  }
  if (pending_.empty()) napi_unref_threadsafe_function(env_, signal_);
}

napi_value Environment::wait(Stream& stream, std::vector<Storage*> reads, napi_value pinned,
                             std::function<void()> copy) {
  if (stream.recording())
    return throwError(Error(ErrorKind::Value, "nothing can be waited for while a program is recorded"));
  napi_value promise = nullptr;
  Pending pending{};
  if (napi_create_promise(env_, &pending.deferred, &promise) != napi_ok) return nullptr;
  if (pinned) napi_create_reference(env_, pinned, 1, &pending.pinned);
  if (pending_.empty()) napi_ref_threadsafe_function(env_, signal_);
  const uint64_t token = nextToken_++;
  pending_.emplace(token, pending);
  stream.read(token, std::move(reads), std::move(copy));
  return promise;
}

bool Environment::callNoop() {
  napi_handle_scope scope;
  if (napi_open_handle_scope(env_, &scope) != napi_ok) return false;
  napi_value function, receiver;
  const bool alive = napi_get_reference_value(env_, noop_, &function) == napi_ok &&
                     napi_get_undefined(env_, &receiver) == napi_ok &&
                     napi_call_function(env_, receiver, function, 0, nullptr, nullptr) == napi_ok;
  napi_close_handle_scope(env_, scope);
  return alive;
}

double Environment::addProgram(std::unique_ptr<Program> program, napi_value owner) {
  OwnedProgram& added = programs_[nextProgram_];
  added.program = std::move(program);
  napi_create_reference(env_, owner, 0, &added.owner);
  return nextProgram_++;
}

const Program& Environment::program(double number) const {
  const auto found = programs_.find(number);
  if (found == programs_.end())
    throw Error(ErrorKind::Handle, "replay: the program is disposed, or one of another thread");
  return *found->second.program;
}

void Environment::removeProgram(double number) {
  const auto found = programs_.find(number);
  if (found == programs_.end()) return;
  napi_delete_reference(env_, found->second.owner);
  programs_.erase(found);
}

void Environment::sweepPrograms() {
  napi_handle_scope scope;
  if (napi_open_handle_scope(env_, &scope) != napi_ok) return;
  std::vector<double> lost;
  for (const auto& [number, owned] : programs_) {
    napi_value owner = nullptr;
    if (napi_get_reference_value(env_, owned.owner, &owner) == napi_ok && !owner) lost.push_back(number);
  }
  for (const double number : lost) removeProgram(number);
  napi_close_handle_scope(env_, scope);
}

void Environment::sweep() {
  handles.sweep(env_);
  sweepPrograms();
  sweptAt_ = allocatedSoFar(context);
}

void Environment::noteAllocations() {
  const auto live = static_cast<int64_t>(context.stream(Device::Cpu).allocator().stats().live);
  // What rises and falls within every training step must not look like growth, for which V8 collects garbage.
  if (live - reported_ > kReportEvery || reported_ / 2 - live > kReportEvery) {
    int64_t adjusted;
    napi_adjust_external_memory(env_, live - reported_, &adjusted);
    reported_ = live;
  }
  if (allocatedSoFar(context) - sweptAt_ > kSweepEvery) sweep();
}

void Environment::start(Napi::Array errorClasses, std::string whyNoCuda) {
  for (uint32_t i = 0; i < std::size(errorClasses_); ++i)
    napi_create_reference(env_, errorClasses.Get(i), 1, &errorClasses_[i]);
  whyNoCuda_ = std::move(whyNoCuda);
}

napi_value Environment::makeError(const Error& error) {
  napi_value constructor = nullptr, message = nullptr, result = nullptr;
  if (napi_create_string_utf8(env_, error.what(), NAPI_AUTO_LENGTH, &message) != napi_ok) return nullptr;
  const napi_ref reference = errorClasses_[static_cast<int>(error.kind())];
  if (!reference) {
    napi_create_error(env_, nullptr, message, &result);
    return result;
  }
  if (napi_get_reference_value(env_, reference, &constructor) != napi_ok ||
      napi_new_instance(env_, constructor, 1, &message, &result) != napi_ok)
    return nullptr;
  return result;
}

napi_value Environment::throwError(const Error& error) {
  napi_value value = makeError(error);
  if (value) napi_throw(env_, value);
  return nullptr;
}

}  // namespace mf::napi
