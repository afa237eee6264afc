export interface AttentionSizes {
  B: number;
  Tq: number;
  Tk: number;
  K: number;
  H: number;
  C: number;
  /** Rows of k and v per sequence; default Tk. */
  capacity?: number;
}

export interface AttentionSettings {
  kind: 'stickBreaking' | 'softmax';
  keyMask?: ArrayLike<number>;
  documentStart?: ArrayLike<number>;
  attendCurrent?: boolean;
  remainder?: boolean;
}

function dot(a: ArrayLike<number>, i: number, b: ArrayLike<number>, j: number, n: number): number {
  let sum = 0;
  for (let c = 0; c < n; c++) sum += a[i + c]! * b[j + c]!;
  return sum;
}

/** The weights over all Tk keys, and what is left of the stick, from logits (null where the key is not seen). */
function weigh(logits: (number | null)[], kind: AttentionSettings['kind']): { a: number[]; rest: number } {
  const a = logits.map(() => 0);
  let rest = 1;
  if (kind === 'softmax') {
    const top = Math.max(...logits.filter((l) => l !== null));
    logits.forEach((l, j) => (a[j] = l === null ? 0 : Math.exp(l - top)));
    const sum = a.reduce((x, y) => x + y, 0);
    return { a: a.map((x) => (sum === 0 ? 0 : x / sum)), rest: 0 };
  }
  for (let j = logits.length - 1; j >= 0; j--) {
    const l = logits[j] ?? null;
    if (l === null) continue;
    a[j] = rest / (1 + Math.exp(-l));
    rest /= 1 + Math.exp(l);
  }
  return { a, rest };
}

/** Visits every query row with its weights over the keys. */
function forRows(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  { B, Tq, Tk, K, H, C, capacity = Tk }: AttentionSizes,
  { kind, keyMask, documentStart, attendCurrent = true }: AttentionSettings,
  visit: (
    row: { b: number; i: number; g: number; h: number; offset: number },
    a: number[],
    rest: number,
  ) => void,
): void {
  for (let b = 0; b < B; b++)
    for (let i = 0; i < Tq; i++)
      for (let g = 0; g < K; g++)
        for (let h = 0; h < H; h++) {
          const offset = (((b * Tq + i) * K + g) * H + h) * C;
          const last = i + Tk - Tq - (attendCurrent ? 0 : 1);
          const first = documentStart ? documentStart[b * Tq + i]! : 0;
          const logits = Array.from({ length: Tk }, (_, j) =>
            j < first || j > last || keyMask?.[b * Tk + j] === 0
              ? null
              : dot(q, offset, k, ((b * capacity + j) * H + h) * C, C) / Math.sqrt(C),
          );
          const { a, rest } = weigh(logits, kind);
          visit({ b, i, g, h, offset }, a, rest);
        }
}

/** q [B, Tq, K, H, C], k and v [B, capacity, H, C] -> out [B, Tq, K, H, C]. */
export function attention(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  v: ArrayLike<number>,
  sizes: AttentionSizes,
  settings: AttentionSettings,
): Float64Array {
  const { Tq, Tk, H, C, capacity = Tk } = sizes;
  const out = new Float64Array(q.length);
  forRows(q, k, sizes, settings, ({ b, i, h, offset }, a, rest) => {
    const add = (weight: number, j: number): void => {
      const from = ((b * capacity + j) * H + h) * C;
      for (let c = 0; c < C; c++) out[offset + c] = out[offset + c]! + weight * v[from + c]!;
    };
    a.forEach((weight, j) => {
      if (weight !== 0) add(weight, j);
    });
    if (settings.remainder) add(rest, i + Tk - Tq);
  });
  return out;
}

/** -> [B, K, H, Tq, Tk]. */
export function attentionWeights(
  q: ArrayLike<number>,
  k: ArrayLike<number>,
  sizes: AttentionSizes,
  settings: AttentionSettings,
): Float64Array {
  const { B, Tq, Tk, K, H } = sizes;
  const weights = new Float64Array(B * K * H * Tq * Tk);
  forRows(q, k, sizes, settings, ({ b, i, g, h }, a) =>
    weights.set(a, (((b * K + g) * H + h) * Tq + i) * Tk),
  );
  return weights;
}
