#pragma once
#include <node_api.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace mf::napi {

// The tensors of one environment. JavaScript holds a handle: a number of 53 bits made of slot (22),
// generation (18) and a tag of the environment (13). A handle that is stale or from elsewhere is recognised
// and rejected.
class HandleTable {
 public:
  HandleTable();

  double add(Tensor tensor);
  const Tensor& get(double handle) const;    // throws Error(Handle)
  void remove(napi_env env, double handle);  // a stale handle is ignored: disposing twice is legal
  // Remembers the JavaScript object that owns the handle, weakly.
  void track(napi_env env, double handle, napi_value owner);
  // Frees every tensor whose object was collected; returns how many.
  size_t sweep(napi_env env);
  size_t size() const { return live_; }

 private:
  struct Slot {
    Tensor tensor;
    napi_ref owner = nullptr;
    uint32_t generation = 0;
    bool used = false;
  };

  const Slot* find(double handle) const;
  void clear(napi_env env, uint32_t index);

  uint32_t tag_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  size_t live_ = 0;
};

}  // namespace mf::napi
