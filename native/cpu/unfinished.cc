// Ops whose kernels have not landed yet.
#include "core/error.h"
#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {

[[noreturn]] static void absent(const char* op) {
  throw Error(ErrorKind::Kernel, std::string(op) + " is not there yet");
}

void CpuBackend::linearCrossEntropy(const LinearCrossEntropyArgs&) {
  absent("linearCrossEntropy");
}

}  // namespace MF_CPU_NAMESPACE
