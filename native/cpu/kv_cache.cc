#include <cstring>
#include <string>

#include "cpu/cpu_backend.h"

namespace MF_CPU_NAMESPACE {
void CpuBackend::cacheAppend(const CacheAppendArgs& args) {
  const int64_t B = args.in.size(0), T = args.in.size(1), W = args.in.size(2), capacity = args.cache.size(1);
  const int64_t start = args.start + (args.position ? *args.position.as<int32_t>() : 0);
  if (start < 0 || start > capacity - T)
    throw Error(ErrorKind::Value, "the first row is " + std::to_string(start) + ", expected 0 to " +
                                      std::to_string(capacity - T));
  const size_t row = static_cast<size_t>(W) * itemSize(args.in.dtype);
  for (int64_t b = 0; b < B; ++b)
    std::memcpy(args.cache.as<char>() + static_cast<size_t>(b * capacity + start) * row,
                args.in.as<char>() + static_cast<size_t>(b * T) * row, static_cast<size_t>(T) * row);
}

}  // namespace MF_CPU_NAMESPACE
