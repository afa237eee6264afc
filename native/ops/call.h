#pragma once
// What every op does on its way from JavaScript to the stream: check arguments, allocate outputs, enqueue.
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/context.h"
#include "core/tensor.h"

namespace mf::ops {

std::string toString(const Shape& shape);

// A checked argument; converts to the View that the kernel sees. Each check throws an Error that names op,
// argument, what was expected and what was given.
class Arg {
 public:
  Arg(const char* op, const char* name, const Tensor& tensor) : op_(op), name_(name), tensor_(tensor) {}

  const Arg& floating() const;      // f64, f32 or bf16
  const Arg& accumulating() const;  // f64 or f32: what router, losses and sums are in
  const Arg& dtype(DType expected) const;
  const Arg& integer() const;  // i32 or i64
  const Arg& rank(int expected) const;
  const Arg& minRank(int expected) const;
  const Arg& shape(const Shape& expected) const;
  const Arg& numel(int64_t expected) const;

  operator View() const { return tensor_.view(); }

 private:
  const char* op_;
  const char* name_;
  const Tensor& tensor_;
};

class Call {
 public:
  Call(Context& context, const char* op) : context_(context), op_(op) {}

  Arg in(const char* name, const Tensor& tensor);     // read
  Arg inout(const char* name, const Tensor& tensor);  // read and changed in place, or written in part
  // Written without being read: what failed before is made good, if all of the storage is written.
  Arg overwrite(const char* name, const Tensor& tensor);
  View optional(
      const std::optional<Tensor>& tensor);  // read; an empty View when absent (check it with in() first)
  std::vector<View> in(const char* name, const std::vector<Tensor>& tensors);
  std::vector<View> inout(const char* name, const std::vector<Tensor>& tensors);
  Tensor out(DType dtype, const Shape& shape);  // a fresh output, or workspace that only the kernel sees
  void on(Device device) { stream_ = &context_.stream(device); }  // for ops without tensor arguments

  [[noreturn]] void fail(ErrorKind kind, const std::string& message) const;
  void require(bool condition, ErrorKind kind, const std::string& message) const {
    if (!condition) fail(kind, message);
  }
  Stream& stream() { return *stream_; }

  template <typename Args>
  void run(void (Backend::*method)(const Args&), std::type_identity_t<Args> args) {
    auto command = std::make_unique<OpCommand<Args>>();
    command->method = method;
    command->args = std::move(args);
    enqueue(std::move(command));
  }

 private:
  template <typename Args>
  struct OpCommand final : Command {
    void (Backend::*method)(const Args&) = nullptr;
    Args args{};
    void run(Backend& backend) override { (backend.*method)(args); }
  };

  void use(const char* name, const Tensor& tensor);
  void enqueue(std::unique_ptr<Command> command);

  Context& context_;
  const char* op_;
  Stream* stream_ = nullptr;
  std::vector<Storage*> reads_, writes_;
};

}  // namespace mf::ops
