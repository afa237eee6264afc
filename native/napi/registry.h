#pragma once
#include <node_api.h>

namespace mf::napi {

void registerOps(napi_env env, napi_value exports);      // ops.cc
void registerTensor(napi_env env, napi_value exports);   // tensor.cc
void registerSystem(napi_env env, napi_value exports);   // system.cc
void registerProgram(napi_env env, napi_value exports);  // program.cc

}  // namespace mf::napi
