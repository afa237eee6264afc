#include <atomic>
#include <thread>

#include "check.h"
#include "core/stream.h"
#include "cpu/select.h"

namespace {

struct Lambda final : mf::Command {
  std::function<void()> body;
  void run(mf::Backend&) override { body(); }
};

struct Fixture {
  std::atomic<int> notified{0};
  bool alive = true;
  mf::Stream stream{mf::cpu::createBackend(), [this] { ++notified; }, [this] { return alive; }, [] {}};

  void enqueue(std::function<void()> body, std::vector<mf::Storage*> reads = {},
               std::vector<mf::Storage*> writes = {}) {
    auto command = std::make_unique<Lambda>();
    command->op = "lambda";
    command->body = std::move(body);
    command->reads = std::move(reads);
    command->writes = std::move(writes);
    stream.enqueue(std::move(command));
  }

  std::vector<mf::Completion> settle(size_t count) {
    stream.drain();
    std::vector<mf::Completion> all;
    while (all.size() < count)
      for (auto& completion : stream.takeCompletions()) all.push_back(std::move(completion));
    return all;
  }
};

}  // namespace

NATIVE_TEST(commandsRunInOrder) {
  Fixture fixture;
  std::vector<int> seen;
  for (int i = 0; i < 1000; ++i) fixture.enqueue([&seen, i] { seen.push_back(i); });
  fixture.stream.drain();
  CHECK(fixture.stream.idle());
  for (int i = 0; i < 1000; ++i) CHECK(seen[static_cast<size_t>(i)] == i);
}

NATIVE_TEST(aFullQueueBlocksTheCallerAndLosesNothing) {
  Fixture fixture;
  int64_t sum = 0;
  for (int i = 0; i < 100000; ++i) fixture.enqueue([&sum] { ++sum; });
  fixture.stream.drain();
  CHECK(sum == 100000);
}

NATIVE_TEST(aTerminatedCallerClosesTheStream) {
  Fixture fixture;
  fixture.alive = false;
  // Slower than the caller, so that the queue fills up.
  for (int i = 0; i < 100000 && !fixture.stream.closed(); ++i)
    fixture.enqueue([] { std::this_thread::sleep_for(std::chrono::microseconds(20)); });
  CHECK(fixture.stream.closed());
}

NATIVE_TEST(waitsCompleteWithTheirTokens) {
  Fixture fixture;
  for (uint64_t token = 1; token <= 100; ++token) fixture.stream.signal(token, {});
  const auto completions = fixture.settle(100);
  for (size_t i = 0; i < 100; ++i) CHECK(completions[i].token == i + 1 && !completions[i].error);
  CHECK(fixture.notified > 0);
}

NATIVE_TEST(failuresPoisonWhatIsComputedFromThem) {
  Fixture fixture;
  mf::Storage* a = fixture.stream.allocator().allocate(64);
  mf::Storage* b = fixture.stream.allocator().allocate(64);
  mf::Storage* c = fixture.stream.allocator().allocate(64);
  bool ranAfter = false;
  fixture.enqueue([] { throw std::runtime_error("broken"); }, {}, {a});
  fixture.enqueue([&] { ranAfter = true; }, {a}, {b});
  fixture.enqueue([] {}, {}, {c});
  fixture.stream.signal(1, {b});
  fixture.stream.signal(2, {c});
  fixture.enqueue([] {}, {}, {a});
  fixture.stream.signal(3, {a});
  const auto completions = fixture.settle(3);
  CHECK(!ranAfter);
  CHECK(completions[0].error && std::string(completions[0].error->what()) == "lambda: broken");
  CHECK(!completions[1].error);
  CHECK(!completions[2].error);
  for (mf::Storage* storage : {a, b, c}) fixture.stream.allocator().release(storage);
}

NATIVE_TEST(closingDropsWhatHasNotRun) {
  std::atomic<int> ran{0};
  {
    Fixture fixture;
    for (int i = 0; i < 200; ++i)
      fixture.enqueue([&ran] {
        ++ran;
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      });
    fixture.stream.close();
    fixture.enqueue([&ran] { ran += 1000; });
  }
  CHECK(ran < 200);
}

NATIVE_TEST(freedBlocksAreReused) {
  Fixture fixture;
  mf::Allocator& allocator = fixture.stream.allocator();
  mf::Storage* first = allocator.allocate(1000);
  allocator.release(first);
  CHECK(allocator.stats().live == 0 && allocator.stats().cached > 0);
  CHECK(allocator.allocate(990) == first);
  allocator.release(first);
  allocator.trim();
  CHECK(allocator.stats().cached == 0);
}

NATIVE_TEST(aLimitIsKept) {
  Fixture fixture;
  mf::Allocator& allocator = fixture.stream.allocator();
  allocator.setLimit(1 << 20);
  mf::Storage* half = allocator.allocate(512 << 10);
  bool refused = false;
  try {
    allocator.allocate(600 << 10);
  } catch (const mf::Error& error) {
    refused = error.kind() == mf::ErrorKind::Memory &&
              std::string(error.what()).find("live in 1 blocks") != std::string::npos;
  }
  CHECK(refused);
  allocator.release(half);
  mf::Storage* other = allocator.allocate(600 << 10);  // the cached half is given back first
  allocator.release(other);
}

NATIVE_TEST(aProgramRunsAsOftenAsItIsReplayed) {
  Fixture fixture;
  mf::Storage* state = fixture.stream.allocator().allocate(64);
  int64_t sum = 0;
  fixture.stream.beginRecording();
  fixture.enqueue([&sum] { ++sum; }, {state}, {state});
  fixture.enqueue([&sum] { sum *= 2; }, {state}, {state});
  const auto program = fixture.stream.endRecording();
  fixture.stream.drain();
  CHECK(sum == 0);
  for (int i = 0; i < 3; ++i) fixture.stream.replay(*program);
  fixture.stream.drain();
  CHECK(sum == 14);
  CHECK(state->references == 2);
}

NATIVE_TEST(memoryFreedInARecordingIsReusedInItAlone) {
  Fixture fixture;
  mf::Allocator& allocator = fixture.stream.allocator();
  fixture.stream.beginRecording();
  mf::Storage* first = allocator.allocate(256);
  fixture.enqueue([] {}, {}, {first});
  first->references = 0;
  allocator.release(first);
  CHECK(allocator.allocate(256) == first);
  first->references = 0;
  allocator.release(first);
  auto program = fixture.stream.endRecording();
  mf::Storage* other = allocator.allocate(256);
  CHECK(other != first);
  fixture.stream.replay(*program);
  program.reset();  // with a run in the queue
  CHECK(allocator.allocate(256) == first);
  fixture.stream.drain();
}

NATIVE_TEST(aFailureInAProgramPoisonsAsOutsideOfIt) {
  Fixture fixture;
  mf::Storage* a = fixture.stream.allocator().allocate(64);
  mf::Storage* b = fixture.stream.allocator().allocate(64);
  bool fail = true, ranAfter = false;
  fixture.stream.beginRecording();
  fixture.enqueue(
      [&fail] {
        if (fail) throw std::runtime_error("broken");
      },
      {}, {a});
  fixture.enqueue([&ranAfter] { ranAfter = true; }, {a}, {b});
  const auto program = fixture.stream.endRecording();
  fixture.stream.replay(*program);
  fixture.stream.drain();
  CHECK(a->poison && b->poison == a->poison && !ranAfter);
  fail = false;
  fixture.stream.replay(*program);
  fixture.stream.drain();
  CHECK(!a->poison && !b->poison && ranAfter);
}

NATIVE_TEST(aStreamClosesInTheMiddleOfAProgram) {
  int64_t runs = 0;
  {
    Fixture fixture;
    fixture.stream.beginRecording();
    for (int i = 0; i < 1000; ++i)
      fixture.enqueue([&runs] {
        ++runs;
        std::this_thread::sleep_for(std::chrono::microseconds(100));
      });
    const auto program = fixture.stream.endRecording();
    for (int i = 0; i < 1000; ++i) fixture.stream.replay(*program);
    fixture.stream.close();
  }
  CHECK(runs < 100000);
}
