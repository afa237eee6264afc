import test from 'ava';
import { mul, narrow, noGrad, sum } from '../lib/autograd/index.js';
import { ShapeError, ValueError } from '../lib/errors.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';
import { tensor } from '../lib/tensor.js';
import { numbers } from './support/compare.js';
import { labelled, makeModel } from './support/models.js';

const ROUTER = 'transformer.h.1.mlpf.gate.w_gate.3.weight';
const EXPERTS = 'transformer.h.1.mlpf.experts.weight';

test('parameters are chosen by name, by pattern and by regular expression; the others are frozen', async (t) => {
  const model = await makeModel();
  const trained = () => [...model.namedParameters()].filter(([, p]) => p.requiresGrad).map(([name]) => name);
  t.deepEqual(model.trainable(ROUTER), [ROUTER]);
  t.deepEqual(trained(), [ROUTER]);
  t.deepEqual(model.trainable('transformer.h.*.mlpf.experts.weight'), [
    'transformer.h.0.mlpf.experts.weight',
    EXPERTS,
  ]);
  model.trainable('**.gate.**', /^lm_head/g);
  t.true(trained().every((name) => name.includes('.gate.') || name === 'lm_head.weight'));
  t.true(trained().includes('lm_head.weight'));
  model.trainable('**');
  t.is(trained().length, [...model.parameters()].length);
  model.trainable();
  t.deepEqual(trained(), []);
});

test('a pattern without a match and rows that do not exist are errors that change nothing', async (t) => {
  const model = await makeModel();
  t.throws(() => model.trainable('transformer.h.*'), {
    instanceOf: ValueError,
    message: /transformer\.h\.\*/,
  });
  t.throws(() => model.trainable(/nothing/), { instanceOf: ValueError });
  for (const rows of [
    [3, 6],
    [-1, 2],
    [2, 2],
    [0.5, 2],
  ] as const) {
    t.throws(() => model.trainable({ name: EXPERTS, rows }), { instanceOf: ShapeError, message: /5, 8, 10/ });
  }
  t.true([...model.parameters()].every(({ requiresGrad, trainableRows }) => requiresGrad && !trainableRows));
});

test('rows that are not trained get a gradient of exactly 0, also when one gradient serves two leaves', async (t) => {
  const [a, b] = [0, 1].map(() =>
    tensor(
      [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
      { dtype: 'f64', requiresGrad: true },
    ),
  );
  if (!a || !b) return t.fail();
  a.trainableRows = [1, 2];
  for (let times = 1; times <= 2; times++) {
    scope(() => {
      sum(mul(a, b)).backward();
    });
    t.deepEqual([...(await numbers(a.grad as never))], [0, 0, 3 * times, 4 * times, 0, 0]);
    t.deepEqual(
      [...(await numbers(b.grad as never))],
      [1, 2, 3, 4, 5, 6].map((x) => x * times),
    );
  }
});

for (const dtype of ['f32', 'f64', 'bf16'] as const) {
  test(`AdamW with weight decay leaves all other rows as they are, to the bit: ${dtype}`, async (t) => {
    const model = await makeModel({}, dtype as 'f32');
    model.train();
    const names = model.trainable({ name: ROUTER, rows: [3, 5] }, { name: EXPERTS, rows: [4, 5] });
    const optimizer = new AdamW(model.namedParameters(), { lr: 0.1, weightDecay: 0.5 });
    const bytes = async () =>
      new Map(
        await Promise.all(
          [...model.namedParameters()].map(async ([name, p]) => [name, await p.bytes()] as const),
        ),
      );
    const before = await bytes();
    for (let step = 0; step < 3; step++) {
      optimizer.zeroGrad();
      scope(() => model.forward(labelled).loss?.backward());
      clipGradNorm(model.parameters(), 1);
      optimizer.step();
    }
    for (const [name, after] of await bytes()) {
      const old = before.get(name) as Uint8Array;
      if (!names.includes(name)) {
        t.deepEqual(after, old, name);
        continue;
      }
      const [row, rows] = name === ROUTER ? [3, 5] : [4, 5];
      const split = (old.length * row) / rows;
      t.deepEqual(after.subarray(0, split), old.subarray(0, split), `${name}: the rows before`);
      t.notDeepEqual(after.subarray(split), old.subarray(split), `${name}: the rows that are trained`);
    }
    const shapes = Object.fromEntries([...optimizer.namedState()].map(([name, x]) => [name, x.shape]));
    t.deepEqual(shapes[`${ROUTER}.m`], [2, 6]);
    t.deepEqual(shapes[`${EXPERTS}.v`], [1, 8, 10]);
  });
}

test('training rows alone is what training a tensor of those rows alone is', async (t) => {
  const values = [
    [1, -2],
    [0.5, 3],
    [-1, 0.25],
  ];
  const whole = tensor(values, { dtype: 'f64', requiresGrad: true });
  whole.trainableRows = [1, 3];
  const part = tensor(values.slice(1), { dtype: 'f64', requiresGrad: true });
  const options = { lr: 0.01, weightDecay: 0.1 };
  const [a, b] = [new AdamW([whole], options), new AdamW([part], options)];
  for (let step = 0; step < 4; step++) {
    for (const [x, optimizer] of [
      [whole, a],
      [part, b],
    ] as const) {
      optimizer.zeroGrad();
      scope(() => {
        sum(mul(mul(x, x), x)).backward();
      });
      clipGradNorm([x], 0.5);
      optimizer.step();
    }
  }
  const rows = noGrad(() => narrow(whole, 1, 2));
  t.deepEqual(await numbers(rows), await numbers(part));
});

test('state of rows can be taken over, and rows that changed since are an error', async (t) => {
  const make = () => {
    const x = tensor(
      [
        [1, 2],
        [3, 4],
      ],
      { dtype: 'f64', requiresGrad: true },
    );
    x.trainableRows = [1, 2];
    return { x, optimizer: new AdamW([['x', x]]) };
  };
  const [a, b] = [make(), make()];
  const step = ({ x, optimizer }: ReturnType<typeof make>) => {
    optimizer.zeroGrad();
    scope(() => {
      sum(mul(x, x)).backward();
    });
    optimizer.step();
  };
  step(a);
  step(b);
  b.optimizer.loadState([...a.optimizer.namedState()]);
  step(b);
  t.deepEqual([...(await numbers(b.x))].slice(0, 2), [1, 2]);
  b.x.trainableRows = [0, 1];
  t.throws(
    () => {
      step(b);
    },
    { instanceOf: ValueError, message: /'x' rows 0 to 1 are trained, it was given with rows 1 to 2/ },
  );
});
