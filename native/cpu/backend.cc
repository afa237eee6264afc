#include "cpu/cpu_backend.h"

#define MF_STRING(x) #x
#define MF_NAME(x) MF_STRING(x)

namespace MF_CPU_NAMESPACE {

Backend* create();
Backend* create() {
  return new CpuBackend();
}

const char* CpuBackend::name() const {
  return "cpu (" MF_NAME(MF_ISA) ")";
}

}  // namespace MF_CPU_NAMESPACE
