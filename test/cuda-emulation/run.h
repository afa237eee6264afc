#pragma once
#include <string>

#include "check.h"
#include "cuda/common.cuh"

// Runs f under every order of threads, with copies that arrive late and early.
template <typename F>
void underEverySchedule(F f) {
  using mf::cuda::emulation::Schedule;
  Schedule& schedule = mf::cuda::emulation::schedule();
  const Schedule before = schedule;
  for (const auto order : {Schedule::Order::Forward, Schedule::Order::Reverse, Schedule::Order::Random})
    for (const bool late : {true, false}) {
      schedule = {order, 7, late};
      f();
    }
  schedule = before;
}

// What the emulator says of a kernel; empty when it finds nothing.
template <typename F>
std::string complaint(F f) {
  try {
    f();
  } catch (const mf::Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}
