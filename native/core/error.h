#pragma once
#include <stdexcept>
#include <string>

namespace mf {

// One per error class of lib/errors.ts.
enum class ErrorKind { Shape, DType, Handle, Value, Kernel, Memory };

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

}  // namespace mf
