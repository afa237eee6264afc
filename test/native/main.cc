// The C++ tests: run under the thread sanitizer, which the Node process itself does not survive.
#include "check.h"

std::vector<NativeTest>& nativeTests() {
  static std::vector<NativeTest> tests;
  return tests;
}

int main() {
  int passed = 0, failed = 0;
  for (const NativeTest& test : nativeTests()) {
    try {
      test.run();
      ++passed;
      std::printf("ok   %s\n", test.name);
    } catch (const std::exception& error) {
      ++failed;
      std::printf("FAIL %s: %s\n", test.name, error.what());
    }
    std::fflush(stdout);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}
