// The table of ops: name in JavaScript, function, names of the arguments (for messages).
#include "ops/ops.h"

#include "napi/convert.h"
#include "napi/registry.h"

namespace mf::napi {

#define MF_OP(function, ...)                              \
  {                                                       \
    static const OpEntry entry{#function, {__VA_ARGS__}}; \
    define<&ops::function>(env, exports, entry);          \
  }

void registerOps(napi_env env, napi_value exports) {
  MF_OP(empty, "dtype", "shape", "device")
  MF_OP(reshape, "x", "shape")
  MF_OP(narrow, "x", "start", "length")
}

#undef MF_OP

}  // namespace mf::napi
