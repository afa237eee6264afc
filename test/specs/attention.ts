import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';
import type { NdArray } from '../support/compare.js';
import { generator } from '../support/random.js';
import { attention, attentionWeights } from '../../lib/autograd/attention.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/attention.js';

interface Variant extends Partial<reference.AttentionSizes> {
  kind?: 'stickBreaking' | 'softmax';
  /** Share of the keys that are left out. */
  masked?: number;
  /** Mean length of packed documents. */
  documents?: number;
  attendCurrent?: boolean;
  remainder?: boolean;
  /** k and v are one tensor. */
  shared?: boolean;
  scale?: number;
  op?: 'attention' | 'weights';
}

const integers = (data: ArrayLike<number>, shape: readonly number[]): InputSpec => ({
  shape,
  values: data,
  dtype: 'i32',
  grad: false,
});

/** The first position of each query's document, documents being cut at random. */
function documentStarts({ B, Tq, Tk }: reference.AttentionSizes, mean: number): Int32Array {
  const next = generator(31);
  const starts = new Int32Array(B * Tq);
  let start = 0;
  for (let n = 0; n < B * Tq; n++) {
    const position = (n % Tq) + Tk - Tq;
    if (n % Tq === 0) start = Math.floor(next() * (Tk - Tq + 1));
    else if (next() < 1 / mean) start = position;
    starts[n] = start;
  }
  return starts;
}

function variant(name: string, options: Variant): CaseSpec {
  const { kind = 'stickBreaking', attendCurrent = true, remainder = false, shared, scale = 1 } = options;
  const Tk = options.Tk ?? 20;
  const sizes = { B: 2, Tq: Tk, K: 2, H: 2, C: 8, Tk, capacity: Tk, ...options };
  const { B, Tq, K, H, C, capacity } = sizes;
  const inputs: Record<string, InputSpec> = {
    q: { shape: [B, Tq, K, H, C], scale },
    k: { shape: [B, capacity, H, C] },
  };
  const weights = options.op === 'weights';
  if (!shared && !weights) inputs['v'] = { shape: [B, capacity, H, C] };
  const settings: reference.AttentionSettings = { kind, attendCurrent, remainder };
  if (options.masked !== undefined) {
    const next = generator(7);
    settings.keyMask = Int32Array.from({ length: B * Tk }, () => (next() < options.masked! ? 0 : 1));
    inputs['keyMask'] = integers(settings.keyMask, [B, Tk]);
  }
  if (options.documents !== undefined) {
    settings.documentStart = documentStarts(sizes, options.documents);
    inputs['documentStart'] = integers(settings.documentStart, [B, Tq]);
  }
  const choices = (x: Record<string, Tensor>) => ({
    kind,
    attendCurrent,
    keyLength: Tk,
    keyMask: x['keyMask'] ?? null,
    documentStart: x['documentStart'] ?? null,
  });
  const data = (x: NdArray | undefined): ArrayLike<number> => (x as NdArray).data;
  return {
    name,
    inputs,
    slack: 16,
    gradient: !weights,
    // The softmax of one logit is 1.
    ...(kind === 'softmax' && Tk === 1 ? { zeroGradients: ['q', 'k'] } : {}),
    run: (x) => {
      const [q, k] = [x['q'] as Tensor, x['k'] as Tensor];
      return weights
        ? attentionWeights(q, k, choices(x))
        : attention(q, k, x['v'] ?? k, { ...choices(x), remainder });
    },
    reference: (x) =>
      weights
        ? {
            data: reference.attentionWeights(data(x['q']), data(x['k']), sizes, settings),
            shape: [B, K, H, Tq, Tk],
          }
        : {
            data: reference.attention(data(x['q']), data(x['k']), data(x['v'] ?? x['k']), sizes, settings),
            shape: [B, Tq, K, H, C],
          },
  };
}

const both = (name: string, options: Variant): CaseSpec[] => [
  variant(`stick-breaking, ${name}`, options),
  variant(`softmax, ${name}`, { ...options, kind: 'softmax' }),
];

export const spec: OpSpec = {
  op: 'attention',
  cases: [
    ...both('plain', {}),
    ...both('several tiles, odd width', { B: 1, Tk: 131, K: 1, H: 1, C: 21 }),
    ...both('masked keys', { masked: 0.4, Tk: 60 }),
    ...both('packed documents', { documents: 9, Tk: 70, K: 1 }),
    ...both('mask and documents', { masked: 0.3, documents: 12, Tk: 55 }),
    ...both('one query on a cache with room', { Tq: 1, Tk: 101, capacity: 120, K: 3 }),
    ...both('some queries on a cache', { Tq: 7, Tk: 64, capacity: 64, masked: 0.2 }),
    ...both('one query, long and wide', { B: 1, H: 1, Tq: 1, Tk: 300, C: 280, capacity: 301 }),
    ...both('keys are the values', { shared: true, H: 1, C: 33, Tk: 40 }),
    ...both('wide head', { B: 1, Tk: 9, H: 1, C: 260 }),
    ...both('one channel, four groups', { C: 1, K: 4, Tk: 18 }),
    ...both('one token', { Tk: 1 }),
    ...both('every key masked', { masked: 1, Tk: 5 }),
    ...both('no sequences', { B: 0 }),
    ...both('large logits', { scale: 5, Tk: 80, B: 1 }),
    variant('without the current token', { attendCurrent: false, Tk: 50 }),
    variant('with the remainder', { remainder: true, Tk: 30 }),
    variant('with the remainder, without the current token', {
      remainder: true,
      attendCurrent: false,
      masked: 0.3,
      documents: 10,
      Tk: 66,
    }),
    ...both('weights', { op: 'weights', Tk: 53, masked: 0.2, documents: 20 }),
    ...both('weights on a cache', { op: 'weights', Tq: 5, Tk: 50, capacity: 64 }),
    variant('weights without the current token', { op: 'weights', attendCurrent: false, Tk: 10 }),
  ],
  cost: ({ q, k }) => {
    const [B, Tq, K, H, C] = (q as InputSpec).shape as [number, number, number, number, number];
    const Tk = (k as InputSpec).shape[1] as number;
    const pairs = B * K * H * Tq * (Tk - (Tq - 1) / 2);
    return { flops: 4 * C * pairs, bytes: 8 * B * H * C * (Tq * K + Tk) };
  },
};
