#include <napi.h>

#include "napi/environment.h"
#include "napi/registry.h"

static Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  try {
    mf::napi::Environment::attach(env);
  } catch (const std::exception& error) {
    Napi::Error::New(env, error.what()).ThrowAsJavaScriptException();
    return exports;
  }
  mf::napi::registerOps(env, exports);
  mf::napi::registerTensor(env, exports);
  mf::napi::registerSystem(env, exports);
  return exports;
}

NODE_API_MODULE(moduleformer, initialise)
