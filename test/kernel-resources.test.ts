import test from 'ava';
import {
  occupancy,
  parsePtxas,
  serializedProducts,
  type Kernel,
} from '../scripts/support/kernel-resources.js';

const output = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z3onePf' for 'sm_80'
ptxas info    : Function properties for _Z3onePf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 68 registers, used 1 barriers, 20480 bytes smem, 512 bytes cmem[0]
ptxas info    : Compile time = 12.000 ms
ptxas info    : Compiling entry function '_Z3twoPd' for 'sm_90a'
ptxas info    : Function properties for _Z3twoPd
    136 bytes stack frame, 232 bytes spill stores, 1224 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 488 bytes cmem[0]
`;

test('registers, shared memory and spills are read from what ptxas says', (t) => {
  t.deepEqual(parsePtxas(output), [
    {
      name: '_Z3onePf',
      architecture: 'sm_80',
      registers: 68,
      shared: 20480,
      stack: 0,
      spillStores: 0,
      spillLoads: 0,
    },
    {
      name: '_Z3twoPd',
      architecture: 'sm_90a',
      registers: 255,
      shared: 0,
      stack: 136,
      spillStores: 232,
      spillLoads: 1224,
    },
  ]);
  t.throws(() => parsePtxas("ptxas info : Compiling entry function 'x' in another form"), {
    message: /not known/,
  });
});

test('products of warpgroups that ptxas serializes are found', (t) => {
  const said =
    'ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to ' +
    "non wgmma instructions defining accumulator registers in the function '_Z3onePf'\n";
  t.deepEqual(serializedProducts(output), []);
  t.deepEqual(serializedProducts(output + said + output), [
    { name: '_Z3onePf', reason: 'non wgmma instructions defining accumulator registers' },
  ]);
});

test('occupancy is what the scarcest of registers, shared memory, warps and blocks allows', (t) => {
  const kernel: Kernel = {
    ...(parsePtxas(output)[0] as Kernel),
    shared: 0,
    registers: 32,
  };
  const of = (change: Partial<Kernel>, threads = 128, shared = 0): number =>
    occupancy({ ...kernel, ...change }, { threads, shared });
  t.is(of({}), 1); // 16 blocks of 4 warps
  t.is(of({}, 32), 0.5); // 32 blocks of one warp
  t.is(of({ registers: 68 }), 28 / 64); // 72 registers: 28 warps
  t.is(of({ registers: 255 }), 8 / 64);
  t.is(of({}, 128, 40 * 1024), (4 * 4) / 64); // 41 KB of 164
  t.is(of({ architecture: 'sm_90a' }, 128, 40 * 1024), (5 * 4) / 64); // of 228
  t.is(of({ architecture: 'sm_120' }, 128, 40 * 1024), (2 * 4) / 48); // of 100
  t.is(of({}, 128, 200 * 1024), 0);
});
