#include "core/profile.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace mf {

std::unique_ptr<Profile> Profile::fromEnvironment() {
  const char* value = std::getenv("MODULEFORMER_PROFILE");  // NOLINT(concurrency-mt-unsafe)
  return value && *value && std::string(value) != "0" ? std::make_unique<Profile>() : nullptr;
}

Profile::~Profile() {
  double sum = 0;
  for (const auto& [op, total] : totals_) sum += total.seconds;
  std::vector<std::pair<std::string, Total>> rows(totals_.begin(), totals_.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  std::fprintf(stderr, "%-26s %10s %8s %10s %6s\n", "op", "seconds", "calls", "ms/call", "share");
  for (const auto& [op, total] : rows)
    std::fprintf(stderr, "%-26s %10.3f %8lld %10.4f %5.1f%%\n", op.c_str(), total.seconds,
                 static_cast<long long>(total.calls), 1e3 * total.seconds / static_cast<double>(total.calls),
                 100 * total.seconds / sum);
}

}  // namespace mf
