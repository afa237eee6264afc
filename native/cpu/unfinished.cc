// Ops whose kernels have not landed yet.
#include "core/error.h"
#include "cpu/cpu_backend.h"

MF_CPU_NAMESPACE {

[[noreturn]] static void absent(const char* op) { throw Error(ErrorKind::Kernel, std::string(op) + " is not there yet"); }

void CpuBackend::linearCrossEntropy(const LinearCrossEntropyArgs&) { absent("linearCrossEntropy"); }

}  // MF_CPU_NAMESPACE
