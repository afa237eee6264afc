#pragma once
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

namespace mf {

// Seconds (without those of ops inside: a program's) and calls per op, printed to stderr at the end:
// MODULEFORMER_PROFILE=1 asks for it.
class Profile {
 public:
  static std::unique_ptr<Profile> fromEnvironment();  // null unless asked for
  ~Profile();

  template <typename F>
  void time(const std::string& op, F&& run) {
    const auto start = std::chrono::steady_clock::now();
    const double outside = std::exchange(inside_, 0);
    run();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    Total& total = totals_[op];
    total.seconds += seconds - inside_;
    ++total.calls;
    inside_ = outside + seconds;
  }

 private:
  struct Total {
    double seconds = 0;
    int64_t calls = 0;
  };
  std::map<std::string, Total> totals_;
  double inside_ = 0;  // seconds of the ops that ran inside the current one
};

}  // namespace mf
