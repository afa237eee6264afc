import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';
import type { NdArray } from '../support/compare.js';
import { generator } from '../support/random.js';
import { sampleToken, type SampleTokenOptions } from '../../lib/autograd/sample.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/sample.js';

const key = { seed: 23n, stream: 9n };
const historyLength = 6;

function row(array: NdArray, b: number): number[] {
  const width = array.shape[1] as number;
  return Array.from({ length: width }, (_, i) => array.data[b * width + i] as number);
}

function sampling(
  name: string,
  B: number,
  V: number,
  options: Omit<SampleTokenOptions, 'history' | 'key'>,
  { scale = 2, levels }: { scale?: number; levels?: number } = {},
): CaseSpec {
  const next = generator(B * V);
  // With `levels`, many logits are equal.
  const values = levels && Float64Array.from({ length: B * V }, () => Math.floor(next() * levels));
  const inputs: Record<string, InputSpec> = {
    logits: { shape: [B, V], dtype: 'acc', ...(values ? { values } : { scale }) },
  };
  if (options.repetitionPenalty !== undefined) {
    // With padding and, in most rows, repeated tokens.
    const values = Int32Array.from(
      { length: B * historyLength },
      () => Math.floor(next() * Math.min(V + 1, 9)) - 1,
    );
    inputs['history'] = { shape: [B, historyLength], values, dtype: 'i32' };
  }
  return {
    name,
    gradient: false,
    dtypes: ['f64', 'f32'],
    inputs,
    run: ({ logits, history }) =>
      sampleToken(logits as Tensor, {
        ...options,
        history: history ?? null,
        key: [Number(key.seed), Number(key.stream)],
      }),
    reference: (arrays) => ({
      data: Array.from({ length: B }, (_, b) =>
        reference.sampleToken(row(arrays['logits'] as NdArray, b), b, {
          temperature: 1,
          ...options,
          history: arrays['history'] ? row(arrays['history'], b) : [],
          key,
        }),
      ),
      shape: [B],
    }),
  };
}

export const spec: OpSpec = {
  op: 'sampleToken',
  cases: [
    sampling('greedy', 9, 101, { temperature: 0 }),
    sampling('greedy with penalty', 9, 12, { temperature: 0, repetitionPenalty: 1.5 }),
    sampling('plain', 40, 50, {}),
    sampling('cool', 40, 50, { temperature: 0.5 }),
    sampling('top-k', 40, 50, { topK: 5 }),
    sampling('top-k above the vocabulary', 10, 7, { topK: 100 }),
    sampling('top-p', 40, 700, { topP: 0.7 }),
    sampling('top-p of a flat row', 12, 900, { topP: 0.95 }, { scale: 0.1 }),
    sampling('top-k and top-p among ties', 12, 700, { topK: 300, topP: 0.613 }, { levels: 5 }),
    sampling('top-p of equals', 12, 40, { topP: 0.613 }, { levels: 1 }),
    sampling('top-p that keeps one', 20, 30, { topP: 1e-6 }),
    sampling('all of them', 40, 60, { temperature: 1.3, topK: 20, topP: 0.9, repetitionPenalty: 1.2 }),
    sampling('one token', 3, 1, { topP: 0.5 }),
    sampling('no rows', 0, 5, {}),
  ],
  cost: ({ logits }) => {
    const numel = (logits as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: 2 * numel, bytes: 8 * numel };
  },
};
