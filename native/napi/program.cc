// Recording a program of ops, and running it.
#include "napi/convert.h"
#include "napi/functions.h"
#include "napi/registry.h"

namespace mf::napi {
namespace {

// For the stream of the device that is the first argument.
Stream& streamOf(napi_env env, Environment& environment, napi_value device, const OpEntry& op) {
  return environment.context.stream(From<Device>::get(env, device, Place{&op, 0}));
}

// canReplay(device): whether its ops can be recorded for a program.
napi_value canReplay(napi_env env, napi_callback_info info) {
  static const OpEntry op{"canReplay", {"device"}};
  Arguments<1> a(env, info);
  return guarded(env, [&](Environment& environment) {
    napi_value result;
    napi_get_boolean(env, streamOf(env, environment, a.values[0], op).backend().canReplay(), &result);
    return result;
  });
}

// beginRecording(device): from now on its ops do not run but are recorded.
napi_value beginRecording(napi_env env, napi_callback_info info) {
  static const OpEntry op{"beginRecording", {"device"}};
  Arguments<1> a(env, info);
  return guarded(env, [&](Environment& environment) -> napi_value {
    streamOf(env, environment, a.values[0], op).beginRecording();
    return nullptr;
  });
}

// endRecording(device, owner): the number of the program, which lives until it is disposed or `owner` is
// collected.
napi_value endRecording(napi_env env, napi_callback_info info) {
  static const OpEntry op{"endRecording", {"device", "owner"}};
  Arguments<2> a(env, info);
  return guarded(env, [&](Environment& environment) {
    Stream& stream = streamOf(env, environment, a.values[0], op);
    return toValue(env, environment.addProgram(stream.endRecording(), a.values[1]));
  });
}

// cancelRecording(device): forgets what was recorded.
napi_value cancelRecording(napi_env env, napi_callback_info info) {
  static const OpEntry op{"cancelRecording", {"device"}};
  Arguments<1> a(env, info);
  return guarded(env, [&](Environment& environment) -> napi_value {
    streamOf(env, environment, a.values[0], op).cancelRecording();
    return nullptr;
  });
}

// replay(device, program): enqueues one run.
napi_value replay(napi_env env, napi_callback_info info) {
  static const OpEntry op{"replay", {"device", "program"}};
  Arguments<2> a(env, info);
  return guarded(env, [&](Environment& environment) -> napi_value {
    const Program& program = environment.program(handleOf(env, a.values[1]));
    streamOf(env, environment, a.values[0], op).replay(program);
    return nullptr;
  });
}

napi_value disposeProgram(napi_env env, napi_callback_info info) {
  Arguments<1> a(env, info);
  Environment::of(env).removeProgram(handleOf(env, a.values[0]));
  return nullptr;
}

}  // namespace

void registerProgram(napi_env env, napi_value exports) {
  addFunction(env, exports, "canReplay", canReplay);
  addFunction(env, exports, "beginRecording", beginRecording);
  addFunction(env, exports, "endRecording", endRecording);
  addFunction(env, exports, "cancelRecording", cancelRecording);
  addFunction(env, exports, "replay", replay);
  addFunction(env, exports, "disposeProgram", disposeProgram);
}

}  // namespace mf::napi
