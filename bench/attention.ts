import { attentionKinds, type FloatDType, type Handle } from '../lib/native/binding.js';
import { native } from '../lib/native/load.js';
import { createRandom } from '../lib/data/random.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { isEmulated } from './support/cuda-peaks.js';
import { benchDevice } from './support/device.js';
import { timeAgainstPeak, type Section } from './support/measure.js';

const K = 2;
const B = 2;

interface Case {
  kind?: (typeof attentionKinds)[number];
  dtype?: FloatDType;
  H: number;
  C: number;
  T: number;
  /** Queries per sequence. Default T. */
  Tq?: number;
}

/** Numbers of variance 1, with `first` in channel 0: q and k then have logits of mean -8, so that no tile is skipped. */
export function vectors(shape: readonly number[], first: number, dtype: FloatDType): Tensor {
  const random = createRandom(shape.length);
  const C = shape.at(-1) as number;
  const numel = shape.reduce((a, b) => a * b, 1);
  const values = Float32Array.from({ length: numel }, (_, i) =>
    i % C === 0 ? first : Math.sqrt(12) * (random.next() - 0.5),
  );
  return tensor(values, { shape, dtype, device: benchDevice });
}

/** Times forward and backward; work is counted over the pairs of a query and a key that it sees. */
async function measure({
  kind = 'stickBreaking',
  dtype = 'f32',
  H,
  C,
  T,
  Tq = T,
}: Case): Promise<Section['rows'][0]> {
  const q = vectors([B, Tq, K, H, C], -8 * Math.sqrt(C), dtype);
  const k = vectors([B, T, H, C], 1, dtype);
  const v = vectors([B, T, H, C], 0.5, dtype);
  const code = attentionKinds.indexOf(kind);
  const outputs = native.attention(code, q.id, k.id, v.id, null, null, T, true, false, true);
  const [out, state, live] = outputs as [Handle, Handle, Handle | null];
  const free = (handles: readonly (Handle | null)[]): void => {
    for (const handle of handles) if (handle !== null) native.dispose(handle);
  };
  const forward = (): void => {
    free(native.attention(code, q.id, k.id, v.id, null, null, T, true, false, true));
  };
  const backward = (): void => {
    free(
      native.attentionBackward(code, q.id, k.id, v.id, null, null, T, true, false, out, state, live, q.id),
    );
  };
  // The CPU multiplies bf16 in f32.
  const peak = benchDevice === 'cuda' && dtype === 'bf16' ? 'bf16' : 'f32';
  const pairs = (B * K * H * Tq * (2 * T - Tq + 1)) / 2;
  const row: Section['rows'][0] = { kind, dtype, C, T, queries: Tq };
  if (Tq === 1) {
    const bytes = 2 * B * T * H * C * (dtype === 'bf16' ? 2 : 4);
    const timing = await timeAgainstPeak(forward, { kind: 'read', work: bytes, repeats: 15 });
    Object.assign(row, {
      'forward ms': Number((1e3 * timing.seconds).toFixed(2)),
      'share of read bandwidth': Number(timing.share.toFixed(2)),
    });
  } else {
    const there = await timeAgainstPeak(forward, { kind: peak, work: 4 * C * pairs });
    const back = await timeAgainstPeak(backward, { kind: peak, work: 10 * C * pairs });
    Object.assign(row, {
      'forward ms': Number((1e3 * there.seconds).toFixed(1)),
      [`share of ${peak} peak`]: Number(there.share.toFixed(2)),
      'backward ms': Number((1e3 * back.seconds).toFixed(1)),
      'share, backward': Number(back.share.toFixed(2)),
    });
  }
  free(outputs);
  for (const x of [q, k, v]) x.dispose();
  return row;
}

/** Attention against the FMA peak (4 C operations per pair forward, 10 C backward), and decoding against the memory. */
export async function run(): Promise<Section> {
  const heads = [
    { H: 8, C: 64 },
    { H: 4, C: 128 },
    { H: 1, C: 1024 },
  ];
  const cases: Case[] = [
    ...heads.flatMap((head) => [512, 2048].map((T) => ({ ...head, T }))),
    ...heads.flatMap((head) => [512, 2048].map((T): Case => ({ ...head, T, dtype: 'bf16' }))),
    { H: 8, C: 64, T: 512, kind: 'softmax' },
    { H: 8, C: 64, T: 2048, kind: 'softmax' },
    { H: 8, C: 64, T: 2048, Tq: 1 },
    { H: 1, C: 1024, T: 2048, Tq: 1 },
    { H: 1, C: 1024, T: 2048, Tq: 1, dtype: 'bf16' },
  ];
  const measured: Case[] =
    benchDevice === 'cuda' && isEmulated() ? [{ H: 1, C: 32, T: 32, dtype: 'bf16' }] : cases;
  const rows: Section['rows'] = [];
  for (const each of measured) rows.push(await measure(each));
  return { name: `attention: B ${B}, K ${K}, no tile skipped`, rows };
}
