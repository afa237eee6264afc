#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace mf {

// Seconds and calls per op, printed to stderr at the end: MODULEFORMER_PROFILE=1 asks for it.
class Profile {
 public:
  static std::unique_ptr<Profile> fromEnvironment();  // null unless asked for
  ~Profile();

  template <typename F>
  void time(const std::string& op, F&& run) {
    const auto start = std::chrono::steady_clock::now();
    run();
    Total& total = totals_[op];
    total.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    ++total.calls;
  }

 private:
  struct Total {
    double seconds = 0;
    int64_t calls = 0;
  };
  std::map<std::string, Total> totals_;
};

}  // namespace mf
