// Which devices a CUDA binary has kernels for.
#include "cuda/architectures.h"

#include "check.h"

using mf::cuda::runsOn;

NATIVE_TEST(machineCodeRunsOnLaterDevicesOfItsMajorVersion) {
  CHECK(runsOn("80-real", 8, 0));
  CHECK(runsOn("80-real", 8, 9));
  CHECK(!runsOn("86-real", 8, 0));
  CHECK(!runsOn("80-real", 9, 0));
}

NATIVE_TEST(codeForOneDeviceRunsOnNoOther) {
  CHECK(runsOn("90a-real", 9, 0));
  CHECK(!runsOn("100a-real", 10, 3));
  CHECK(!runsOn("90a", 10, 0));
}

NATIVE_TEST(codeForLaterDevicesRunsOnAllOfThem) {
  CHECK(runsOn("120", 12, 0));
  CHECK(runsOn("120", 13, 0));
  CHECK(!runsOn("120", 10, 0));
}

NATIVE_TEST(anyArchitectureOfSeveralIsEnough) {
  const char* released = "80-real,90a-real,100a-real,120";
  CHECK(runsOn(released, 8, 6) && runsOn(released, 9, 0) && runsOn(released, 10, 0) &&
        runsOn(released, 12, 1));
  CHECK(!runsOn(released, 7, 5) && !runsOn(released, 10, 3) && !runsOn(released, 11, 0));
  CHECK(!runsOn("", 8, 0));
}
