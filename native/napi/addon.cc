#include <napi.h>

#include "napi/registry.h"

// Starts nothing: the loader may only want to know what this binary offers, and then take another one.
static Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  mf::napi::registerOps(env, exports);
  mf::napi::registerTensor(env, exports);
  mf::napi::registerSystem(env, exports);
  mf::napi::registerProgram(env, exports);
  return exports;
}

NODE_API_MODULE(moduleformer, initialise)
