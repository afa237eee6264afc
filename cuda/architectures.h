#pragma once
#include <algorithm>
#include <charconv>
#include <string_view>

namespace mf::cuda {

// Whether a binary built for these architectures has kernels for a device of compute capability major.minor.
// They are separated by commas and spelled as for CMake: `80-real` is machine code, for later devices of the
// same major version too; `90a-real` is machine code for that device alone; without `-real` there is code for
// all later devices.
inline bool runsOn(std::string_view architectures, int major, int minor) {
  while (!architectures.empty()) {
    const size_t comma = std::min(architectures.find(','), architectures.size());
    const std::string_view one = architectures.substr(0, comma);
    architectures.remove_prefix(std::min(comma + 1, architectures.size()));
    int number = 0;
    const auto [rest, error] = std::from_chars(one.data(), one.data() + one.size(), number);
    if (error != std::errc{}) continue;
    const bool isSpecific = rest != one.data() + one.size() && *rest == 'a';
    const int asked = 10 * major + minor;
    if (number == asked) return true;
    if (isSpecific || number > asked) continue;
    if (number / 10 == major || !one.ends_with("-real")) return true;
  }
  return false;
}

// Whether it has machine code with the instructions of one architecture alone: `90a`.
inline bool hasSpecific(std::string_view architectures, std::string_view specific) {
  while (!architectures.empty()) {
    const size_t comma = std::min(architectures.find(','), architectures.size());
    const std::string_view one = architectures.substr(0, comma);
    architectures.remove_prefix(std::min(comma + 1, architectures.size()));
    if (one.starts_with(specific) && (one.size() == specific.size() || one[specific.size()] == '-'))
      return true;
  }
  return false;
}

}  // namespace mf::cuda
