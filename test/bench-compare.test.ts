import test from 'ava';
import { compareReports, parseReport, type Report } from '../bench/support/compare.js';

const machine = { processor: 'P', threads: 2, instructionSet: 'avx512', peakF32: 4e11 };
const report = (...rows: Report['sections'][number]['rows']): Report => ({
  machine,
  sections: [{ name: 'gemm', rows }],
});

test('a share that fell by more than its noise is worse; within the noise it is the same', (t) => {
  const before = report({ dtype: 'f32', N: 64, 'share of f32 peak': 0.8 });
  const of = (share: number) =>
    compareReports(before, report({ dtype: 'f32', N: 64, 'share of f32 peak': share })).changes[0]?.verdict;
  t.is(of(0.71), 'worse');
  t.is(of(0.73), 'same');
  t.is(of(0.88), 'same');
  t.is(of(0.9), 'better');
});

test('time and memory are better when low, tokens/s when high', (t) => {
  const before = report({ dtype: 'f32', 'forward ms': 10, 'peak memory MB': 100, 'tokens/s': 50 });
  const after = report({ dtype: 'f32', 'forward ms': 20, 'peak memory MB': 50, 'tokens/s': 100 });
  t.deepEqual(
    compareReports(before, after).changes.map(({ column, verdict, ratio }) => [column, verdict, ratio]),
    [
      ['forward ms', 'worse', 0.5],
      ['peak memory MB', 'better', 2],
      ['tokens/s', 'better', 2],
    ],
  );
});

test('a row is found again when it has another number of forks, which is better when low', (t) => {
  const { changes, missing } = compareReports(
    report({ batch: 1, forks: 100 }),
    report({ batch: 1, forks: 50 }),
  );
  t.deepEqual(missing, []);
  t.deepEqual(
    changes.map(({ column, verdict }) => [column, verdict]),
    [['forks', 'better']],
  );
});

test('a cell with share and time counts by its share', (t) => {
  const { changes } = compareReports(
    report({ N: 1, dw1: '0.80 (5.0 ms)' }),
    report({ N: 1, dw1: '0.40 (5.1 ms)' }),
  );
  t.is(changes.length, 1);
  t.is(changes[0]?.verdict, 'worse');
  t.is(changes[0]?.ratio, 0.5);
});

test('rows are matched by their labels, and what is gone is named; peaks, targets and losses are not compared', (t) => {
  const before = report(
    { N: 1, 'tokens/s': 10, 'f32 peak GF/s': 400, 'target of the ratio': 2, loss: 9.125 },
    { N: 2, 'tokens/s': 10 },
  );
  const after = report({ N: 1, 'tokens/s': 10, 'f32 peak GF/s': 100, 'target of the ratio': 2, loss: 3.5 });
  const { changes, missing } = compareReports(before, after);
  t.deepEqual(
    changes.map(({ column }) => column),
    ['tokens/s'],
  );
  t.deepEqual(missing, ['gemm: N 2']);
  t.deepEqual(compareReports(before, { machine, sections: [] }).missing, ['gemm']);
});

test('a noise factor widens what counts as the same, and another machine is noticed', (t) => {
  const before = report({ N: 1, 'tokens/s': 10 });
  const after = report({ N: 1, 'tokens/s': 7 });
  t.is(compareReports(before, after).changes[0]?.verdict, 'worse');
  t.is(compareReports(before, after, 2).changes[0]?.verdict, 'same');
  t.true(compareReports(before, after).sameMachine);
  t.false(compareReports(before, { ...after, machine: { ...machine, threads: 1 } }).sameMachine);
});

test('a section is known by its title, whatever follows the colon', (t) => {
  const named = (name: string): Report => ({
    machine,
    sections: [{ name, rows: [{ N: 1, 'KB per token': 3 }] }],
  });
  const { changes, missing } = compareReports(named('train: loss 1.2'), named('train: loss 1.3'));
  t.deepEqual([changes.length, missing], [1, []]);
});

test('what is no report is refused by name', (t) => {
  for (const text of [
    'null',
    '[]',
    '{"machine": {"threads": 2}}',
    '{"machine": {"threads": 2}, "sections": [{}]}',
  ])
    t.throws(() => parseReport(text, 'old.json'), { message: /old\.json is not a report/ });
  t.deepEqual(parseReport(JSON.stringify(report()), 'old.json'), report());
});
