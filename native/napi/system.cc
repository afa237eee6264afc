// The machine and the process: streams, memory, threads, instruction sets.
#include "core/pool.h"
#include "core/pool_stats.h"
#include "cpu/peak.h"
#include "cpu/select.h"
#include "napi/convert.h"
#include "napi/registry.h"
#ifdef MF_CUDA
#include "cuda/select.h"
#endif

namespace mf::napi {
namespace {

// Calls f for the stream of every device that is in use.
template <typename F>
void forStreams(Environment& environment, F&& f) {
  for (const auto& stream : environment.context.streams)
    if (stream) f(*stream);
}

// synchronize(): a promise of everything enqueued so far having run, on every device in use.
Napi::Value synchronize(const Napi::CallbackInfo& info) {
  Environment& environment = Environment::of(info.Env());
  Napi::Array promises = Napi::Array::New(info.Env());
  forStreams(environment, [&](Stream& stream) {
    promises.Set(promises.Length(), Napi::Value(info.Env(), environment.wait(stream, {}, nullptr, {})));
  });
  Napi::Object promise = info.Env().Global().Get("Promise").As<Napi::Object>();
  return promise.Get("all").As<Napi::Function>().Call(promise, {promises});
}

Napi::Value memoryStats(const Napi::CallbackInfo& info) {
  Environment& environment = Environment::of(info.Env());
  MemoryStats stats;
  forStreams(environment, [&](Stream& stream) {
    const MemoryStats& device = stream.allocator().stats();
    stats.live += device.live;
    stats.peak += device.peak;
    stats.cached += device.cached;
    stats.blocks += device.blocks;
  });
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("live", static_cast<double>(stats.live));
  result.Set("peak", static_cast<double>(stats.peak));
  result.Set("cached", static_cast<double>(stats.cached));
  result.Set("blocks", static_cast<double>(stats.blocks));
  result.Set("tensors", static_cast<double>(environment.handles.size()));
  return result;
}

void setMemoryLimit(const Napi::CallbackInfo& info) {
  const double bytes = info[0].As<Napi::Number>().DoubleValue();
  // A double beyond int64_t, such as Infinity, has no size_t to convert to.
  const bool unlimited = bytes >= static_cast<double>(INT64_MAX);
  Environment::of(info.Env()).setMemoryLimit(unlimited ? SIZE_MAX : static_cast<size_t>(bytes));
}

void resetPeakMemory(const Napi::CallbackInfo& info) {
  forStreams(Environment::of(info.Env()), [](Stream& stream) { stream.allocator().resetPeak(); });
}

void trimMemory(const Napi::CallbackInfo& info) {
  Environment& environment = Environment::of(info.Env());
  environment.sweep();
  forStreams(environment, [](Stream& stream) { stream.allocator().trim(); });
}

Napi::Value numThreads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), Pool::instance().threads());
}

void setNumThreads(const Napi::CallbackInfo& info) {
  Pool::instance().setThreads(info[0].As<Napi::Number>().Int32Value());
}

// poolStats(): what forking and joining threads has cost the process so far.
Napi::Value forkJoinStats(const Napi::CallbackInfo& info) {
  const PoolStats stats = poolStats();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("jobs", static_cast<double>(stats.jobs));
  result.Set("seconds", stats.seconds);
  return result;
}

Napi::Value instructionSets(const Napi::CallbackInfo& info) {
  const cpu::InstructionSets sets = cpu::instructionSets();
  const auto list = [&](const std::vector<std::string>& names) {
    Napi::Array array = Napi::Array::New(info.Env());
    for (uint32_t i = 0; i < names.size(); ++i) array.Set(i, names[i]);
    return array;
  };
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("built", list(sets.built));
  result.Set("supported", list(sets.supported));
  result.Set("chosen", sets.chosen);
  result.Set("bf16Dot", sets.bf16Dot);
  return result;
}

// measurePeak(kind, threads): the machine's own best, about 50 ms on this thread.
Napi::Value measurePeak(const Napi::CallbackInfo& info) {
  const auto kind = static_cast<cpu::PeakKind>(info[0].As<Napi::Number>().Int32Value());
  return Napi::Number::New(info.Env(), cpu::measurePeak(kind, info[1].As<Napi::Number>().Int32Value()));
}

// start(errorClasses, whyNoCuda): the first call. Only now are the threads and tables of this environment
// made.
void start(const Napi::CallbackInfo& info) {
  try {
    Environment::of(info.Env()).start(info[0].As<Napi::Array>(), info[1].As<Napi::String>());
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

// cudaDevices(): { names, reason, architectures }; the reason why there are no names is '' where there are
// some.
Napi::Value cudaDevices(const Napi::CallbackInfo& info) {
  Napi::Array names = Napi::Array::New(info.Env());
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("names", names);
  result.Set("architectures", "");
#ifdef MF_CUDA
  try {
    const cuda::Devices devices = cuda::devices();
    for (const std::string& name : devices.names) names.Set(names.Length(), name);
    result.Set("reason", devices.reason);
    result.Set("architectures", devices.architectures);
  } catch (const std::exception& error) {
    result.Set("reason", error.what());
  }
#else
  result.Set("reason", "this addon was built without CUDA");
#endif
  return result;
}

// For tests: the next kernel of this op fails; fresh outputs hold NaN until their op has run.
void failNext(const Napi::CallbackInfo& info) {
  const std::string op = info[0].As<Napi::String>().Utf8Value();
  forStreams(Environment::of(info.Env()), [&](Stream& stream) { stream.failNext(op); });
}

void poisonOutputs(const Napi::CallbackInfo& info) {
  Environment::of(info.Env()).context.poisonOutputs = info[0].As<Napi::Boolean>().Value();
}

}  // namespace

void registerSystem(napi_env env, napi_value exports) {
  Napi::Object target(env, exports);
  target.Set("synchronize", Napi::Function::New<synchronize>(env, "synchronize"));
  target.Set("memoryStats", Napi::Function::New<memoryStats>(env, "memoryStats"));
  target.Set("setMemoryLimit", Napi::Function::New<setMemoryLimit>(env, "setMemoryLimit"));
  target.Set("resetPeakMemory", Napi::Function::New<resetPeakMemory>(env, "resetPeakMemory"));
  target.Set("trimMemory", Napi::Function::New<trimMemory>(env, "trimMemory"));
  target.Set("numThreads", Napi::Function::New<numThreads>(env, "numThreads"));
  target.Set("setNumThreads", Napi::Function::New<setNumThreads>(env, "setNumThreads"));
  target.Set("poolStats", Napi::Function::New<forkJoinStats>(env, "poolStats"));
  target.Set("instructionSets", Napi::Function::New<instructionSets>(env, "instructionSets"));
  target.Set("cudaDevices", Napi::Function::New<cudaDevices>(env, "cudaDevices"));
  target.Set("measurePeak", Napi::Function::New<measurePeak>(env, "measurePeak"));
  target.Set("start", Napi::Function::New<start>(env, "start"));
  target.Set("failNext", Napi::Function::New<failNext>(env, "failNext"));
  target.Set("poisonOutputs", Napi::Function::New<poisonOutputs>(env, "poisonOutputs"));
}

}  // namespace mf::napi
