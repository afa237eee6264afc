#include "napi/handles.h"

#include <atomic>
#include <random>

#include "core/error.h"

namespace mf::napi {
namespace {

constexpr int kSlotBits = 22, kGenerationBits = 18, kTagBits = 13;
constexpr uint64_t mask(int bits) {
  return (uint64_t{1} << bits) - 1;
}

uint32_t nextTag() {
  static std::atomic<uint32_t> counter{std::random_device{}()};
  return static_cast<uint32_t>(counter.fetch_add(1) & mask(kTagBits));
}

}  // namespace

HandleTable::HandleTable() : tag_(nextTag()) {}

double HandleTable::add(Tensor tensor) {
  if (free_.empty()) {
    if (slots_.size() > mask(kSlotBits)) throw Error(ErrorKind::Memory, "too many live tensors (4194304)");
    free_.push_back(static_cast<uint32_t>(slots_.size()));
    slots_.emplace_back();
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  Slot& slot = slots_[index];
  slot.tensor = std::move(tensor);
  slot.used = true;
  ++live_;
  return static_cast<double>((uint64_t{tag_} << (kSlotBits + kGenerationBits)) |
                             (uint64_t{slot.generation} << kSlotBits) | index);
}

const HandleTable::Slot* HandleTable::find(double handle) const {
  if (!(handle >= 0 && handle < 9007199254740992.0)) return nullptr;
  const auto bits = static_cast<uint64_t>(handle);
  const uint64_t index = bits & mask(kSlotBits);
  if (static_cast<double>(bits) != handle || index >= slots_.size() ||
      bits >> (kSlotBits + kGenerationBits) != tag_)
    return nullptr;
  const Slot& slot = slots_[index];
  return slot.used && slot.generation == ((bits >> kSlotBits) & mask(kGenerationBits)) ? &slot : nullptr;
}

const Tensor& HandleTable::get(double handle) const {
  const Slot* slot = find(handle);
  if (!slot) throw Error(ErrorKind::Handle, "is disposed, or a tensor of another thread");
  return slot->tensor;
}

void HandleTable::clear(napi_env env, uint32_t index) {
  Slot& slot = slots_[index];
  if (slot.owner) napi_delete_reference(env, slot.owner);
  slot.owner = nullptr;
  slot.tensor = Tensor();
  slot.used = false;
  --live_;
  // A slot whose generations are used up retires: no handle ever means two tensors.
  if (++slot.generation <= mask(kGenerationBits)) free_.push_back(index);
}

void HandleTable::remove(napi_env env, double handle) {
  const Slot* slot = find(handle);
  if (slot) clear(env, static_cast<uint32_t>(slot - slots_.data()));
}

void HandleTable::track(napi_env env, double handle, napi_value owner) {
  const Slot* slot = find(handle);
  if (!slot || slot->owner) return;
  napi_create_reference(env, owner, 0, &slots_[static_cast<size_t>(slot - slots_.data())].owner);
}

size_t HandleTable::sweep(napi_env env) {
  size_t freed = 0;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return 0;
  for (uint32_t index = 0; index < slots_.size(); ++index) {
    Slot& slot = slots_[index];
    if (!slot.used || !slot.owner) continue;
    napi_value owner = nullptr;
    if (napi_get_reference_value(env, slot.owner, &owner) == napi_ok && !owner) {
      clear(env, index);
      ++freed;
    }
  }
  napi_close_handle_scope(env, scope);
  return freed;
}

}  // namespace mf::napi
