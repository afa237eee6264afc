// That decoding a token is one launch of a graph: only on a CUDA device, emulated or not. What a graph does is tested in
// test/cuda-emulation/graph_test.cc.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { testDevice } from './support/device.js';

const script = fileURLToPath(new URL('support/generate-child.ts', import.meta.url));

/** The tokens that a process generates, and how often its queue called each operation. */
async function generate(tokens: number): Promise<{ ids: number[][]; calls: Map<string, number> }> {
  const { stdout, stderr } = await promisify(execFile)(
    process.execPath,
    ['--import', 'tsx', script, String(tokens)],
    { env: { ...process.env, MODULEFORMER_PROFILE: '1' } },
  );
  const rows = [...stderr.matchAll(/^(\w+) +[\d.]+ +(\d+) /gm)];
  const calls = new Map(rows.map(([, op, count]) => [op as string, Number(count)]));
  return { ids: JSON.parse(stdout) as number[][], calls };
}

/** Launches of graphs; and what is queued more or less often by chance: a write to an idle queue is done at once. */
const uncounted = new Set(['replay', 'wait', 'write']);

(testDevice === 'cuda' ? test : test.skip)(
  'operations of a step are called for the prompt, the first step and its capture; then graphs are launched',
  async (t) => {
    const [few, many] = await Promise.all([generate(6), generate(16)]);
    t.deepEqual(many.ids[0]?.slice(0, 6), few.ids[0]);
    t.is(few.calls.get('replay'), 5);
    t.is(many.calls.get('replay'), 15);
    t.is(few.calls.get('sampleToken'), 3);
    for (const [op, count] of many.calls) {
      if (!uncounted.has(op)) t.is(few.calls.get(op), count, op);
    }
  },
);
