// A CUDA device of 64 MB, which only the emulator can play: what happens when its memory is used up.
import test from 'ava';

process.env['MODULEFORMER_EMULATION_MEMORY'] = String(64e6);
const { numbers } = await import('./support/compare.js');
const { testDevice: device } = await import('./support/device.js');
const { native } = await import('../lib/native/load.js');
const { empty, tensor } = await import('../lib/tensor.js');
const { OutOfMemoryError } = await import('../lib/errors.js');
const { setMemoryLimit } = await import('../lib/system.js');
const { quantizedGroupedGemm, quantizeWeight, RoutingPlan } = await import('../lib/autograd/index.js');

const check = device === 'cuda' ? test.serial : test.serial.skip;
const megabytes = (count: number) => empty([count * 250_000], 'f32', device);

check('a limit that was set before the device was used holds on it, and goes', (t) => {
  setMemoryLimit(20e6);
  try {
    t.throws(() => megabytes(24), { instanceOf: OutOfMemoryError, message: /24 MB wanted.*limit/ });
  } finally {
    setMemoryLimit(Infinity);
  }
  t.notThrows(() => megabytes(24).dispose());
});

check('what is cached is given back for a block that does not fit beside it', (t) => {
  const before = native.memoryStats();
  for (let i = 0; i < 3; i++) {
    megabytes(24).dispose();
    t.true(native.memoryStats().cached >= 24e6);
    using large = megabytes(48);
    t.is(large.numel, 12e6);
    t.true(native.memoryStats().cached < 24e6);
  }
  t.is(native.memoryStats().live, before.live);
  native.trimMemory();
});

check('what does not fit at all throws with what is live, and changes nothing', async (t) => {
  using held = megabytes(40);
  for (let i = 0; i < 2; i++) {
    t.throws(() => megabytes(30), {
      instanceOf: OutOfMemoryError,
      message: /out of memory: 30 MB wanted, 4\d MB live in \d+ blocks/,
    });
  }
  using small = tensor(Float32Array.of(1, 2), { device });
  t.deepEqual([...(await small.data())], [1, 2]);
  t.is(held.numel, 10e6);
  held.dispose();
  t.notThrows(() => megabytes(48).dispose());
  native.trimMemory();
});

check('an op that gets no scratch is named, its result is not used, and it works later', async (t) => {
  const [N, K, E, width] = [33, 2, 4, 512];
  using w = tensor(new Float32Array(E * width * width).fill(0.5), { shape: [E, width, width], device });
  const weight = quantizeWeight(w, { groupSize: 64, transposed: false });
  w.dispose();
  using x = tensor(new Float32Array(N * width).fill(1), { shape: [N, width], device });
  using experts = tensor(
    Int32Array.from({ length: N * K }, (_, i) => i % E),
    { shape: [N, K], device },
  );
  const plan = new RoutingPlan(experts, experts, E);
  const product = () => quantizedGroupedGemm(x, weight, plan, { inputRows: 'token', outputRows: 'slot' });
  native.trimMemory();
  const held = megabytes(56);
  using failed = product();
  await t.throwsAsync(failed.data(), {
    instanceOf: OutOfMemoryError,
    message: /quantizedGemm: out of memory on the CUDA device: 4\d+ bytes of scratch wanted/,
  });
  held.dispose();
  native.trimMemory();
  using y = product();
  const values = await numbers(y);
  t.is(values.length, N * K * width);
  const furthest = Math.max(...values.map((value) => Math.abs(value / (width / 2) - 1)));
  t.true(furthest < 1e-3, String(furthest));
});
