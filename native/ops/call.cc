#include "ops/call.h"

#include <limits>

namespace mf::ops {
namespace {

[[noreturn]] void failArgument(ErrorKind kind, const char* op, const char* name, const std::string& has,
                               const std::string& expected) {
  throw Error(kind, std::string(op) + ": " + name + " has " + has + ", expected " + expected);
}

// What fresh outputs hold in tests, so that nothing passes on memory that was never written.
double poisonValue(DType dtype) {
  switch (dtype) {
    case DType::i8:
      return -128;
    case DType::u8:
      return 255;
    case DType::i32:
    case DType::i64:
      return -2147483648.0;
    default:
      return std::numeric_limits<double>::quiet_NaN();
  }
}

}  // namespace

std::string toString(const Shape& shape) {
  std::string text = "[";
  for (int i = 0; i < shape.rank; ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

const Arg& Arg::floating() const {
  if (!isFloat(tensor_.dtype()))
    failArgument(ErrorKind::DType, op_, name_, std::string("dtype ") + dtypeName(tensor_.dtype()),
                 "f64, f32 or bf16");
  return *this;
}

const Arg& Arg::accumulating() const {
  if (tensor_.dtype() != DType::f64 && tensor_.dtype() != DType::f32)
    failArgument(ErrorKind::DType, op_, name_, std::string("dtype ") + dtypeName(tensor_.dtype()),
                 "f64 or f32");
  return *this;
}

const Arg& Arg::dtype(DType expected) const {
  if (tensor_.dtype() != expected)
    failArgument(ErrorKind::DType, op_, name_, std::string("dtype ") + dtypeName(tensor_.dtype()),
                 dtypeName(expected));
  return *this;
}

const Arg& Arg::integer() const {
  if (tensor_.dtype() != DType::i32 && tensor_.dtype() != DType::i64)
    failArgument(ErrorKind::DType, op_, name_, std::string("dtype ") + dtypeName(tensor_.dtype()),
                 "i32 or i64");
  return *this;
}

const Arg& Arg::rank(int expected) const {
  if (tensor_.shape().rank != expected)
    failArgument(ErrorKind::Shape, op_, name_, "shape " + toString(tensor_.shape()),
                 std::to_string(expected) + " dimensions");
  return *this;
}

const Arg& Arg::minRank(int expected) const {
  if (tensor_.shape().rank < expected)
    failArgument(ErrorKind::Shape, op_, name_, "shape " + toString(tensor_.shape()),
                 "at least " + std::to_string(expected) + " dimensions");
  return *this;
}

const Arg& Arg::shape(const Shape& expected) const {
  if (!(tensor_.shape() == expected))
    failArgument(ErrorKind::Shape, op_, name_, "shape " + toString(tensor_.shape()), toString(expected));
  return *this;
}

const Arg& Arg::numel(int64_t expected) const {
  if (tensor_.numel() != expected)
    failArgument(ErrorKind::Shape, op_, name_, "shape " + toString(tensor_.shape()),
                 std::to_string(expected) + " elements");
  return *this;
}

void Call::use(const char* name, const Tensor& tensor) {
  Stream* stream = nullptr;
  for (auto& candidate : context_.streams)
    if (candidate && &candidate->allocator() == tensor.storage()->owner) stream = candidate.get();
  if (!stream_) stream_ = stream;
  require(stream == stream_, ErrorKind::Value,
          std::string(name) + " is on another device than the arguments before it");
}

Arg Call::in(const char* name, const Tensor& tensor) {
  use(name, tensor);
  reads_.push_back(tensor.storage());
  return Arg(op_, name, tensor);
}

Arg Call::inout(const char* name, const Tensor& tensor) {
  writes_.push_back(tensor.storage());
  return in(name, tensor);
}

Arg Call::overwrite(const char* name, const Tensor& tensor) {
  if (!tensor.isWhole()) return inout(name, tensor);
  use(name, tensor);
  writes_.push_back(tensor.storage());
  return Arg(op_, name, tensor);
}

View Call::optional(const std::optional<Tensor>& tensor) {
  if (!tensor) return View{};
  return in("optional argument", *tensor);
}

std::vector<View> Call::in(const char* name, const std::vector<Tensor>& tensors) {
  std::vector<View> views;
  views.reserve(tensors.size());
  for (const Tensor& tensor : tensors) views.push_back(in(name, tensor));
  return views;
}

std::vector<View> Call::inout(const char* name, const std::vector<Tensor>& tensors) {
  std::vector<View> views;
  views.reserve(tensors.size());
  for (const Tensor& tensor : tensors) views.push_back(inout(name, tensor));
  return views;
}

Tensor Call::out(DType dtype, const Shape& shape) {
  require(stream_ != nullptr, ErrorKind::Value, "no device given");
  int64_t numel = 1;
  for (int i = 0; i < shape.rank; ++i)
    if (__builtin_mul_overflow(numel, shape[i], &numel) || numel < 0 || numel > (int64_t{1} << 48))
      fail(ErrorKind::Shape, "a tensor of shape " + toString(shape) + " is too large");
  Tensor tensor(stream_->allocator().allocate(static_cast<size_t>(numel) * itemSize(dtype)), dtype, shape);
  writes_.push_back(tensor.storage());
  if (context_.poisonOutputs) {
    auto command = std::make_unique<OpCommand<FillArgs>>();
    command->method = &Backend::fill;
    command->args = FillArgs{tensor.view(), poisonValue(dtype)};
    command->op = "fill";
    command->writes = {tensor.storage()};
    stream_->enqueue(std::move(command));
  }
  return tensor;
}

void Call::fail(ErrorKind kind, const std::string& message) const {
  throw Error(kind, std::string(op_) + ": " + message);
}

void Call::enqueue(std::unique_ptr<Command> command) {
  command->op = op_;
  command->reads = std::move(reads_);
  command->writes = std::move(writes_);
  stream_->enqueue(std::move(command));
}

}  // namespace mf::ops
