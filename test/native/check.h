#pragma once
#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

// A test is a function that throws when something is wrong.
struct NativeTest {
  const char* name;
  void (*run)();
};

std::vector<NativeTest>& nativeTests();

#define NATIVE_TEST(function)                                                                      \
  static void function();                                                                          \
  static const bool function##Registered = (nativeTests().push_back({#function, function}), true); \
  static void function()

#define CHECK(condition)                                                                                \
  do {                                                                                                  \
    if (!(condition))                                                                                   \
      throw std::runtime_error(std::string(__FILE__ ":") + std::to_string(__LINE__) + ": " #condition); \
  } while (false)
