import { attentionKinds } from '../native/binding.js';
import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { isGradEnabled, record, type BackwardRule } from './engine.js';

/** How weights come from scores: by breaking a stick from the latest key on, or by softmax. */
export type AttentionKind = (typeof attentionKinds)[number];

/** What attention may be told: masks, documents, a cache, and the switches of stick-breaking. */
export interface AttentionOptions {
  /** Default 'stickBreaking'. */
  kind?: AttentionKind;
  /** [B, Tk] i32: 0 leaves a key out, for every query. */
  keyMask?: Tensor | null;
  /** [B, Tq] i32: the first key position that a query may see (packed documents). */
  documentStart?: Tensor | null;
  /** How many rows of k and v count: Tk, at least Tq. Default: all; less in a cache with room. */
  keyLength?: number;
  /** Stick-breaking: whether a token sees itself. Default true. */
  attendCurrent?: boolean;
  /** Stick-breaking: whether what is left of the stick is given to the token's own value. Default false. */
  remainder?: boolean;
  /**
   * [1] i32: the position of the first query, read when the kernel runs. As many keys count as it and Tq make, instead
   * of `keyLength`, which stays the width of `keyMask`. No gradient flows.
   */
  position?: Tensor | null;
}

interface Settings {
  kind: number;
  keyLength: number;
  attendCurrent: boolean;
  remainder: boolean;
}

function settingsOf(k: Tensor, options: AttentionOptions): Settings {
  return {
    kind: attentionKinds.indexOf(options.kind ?? 'stickBreaking'),
    keyLength: options.keyLength ?? k.shape[1] ?? 0,
    attendCurrent: options.attendCurrent ?? true,
    remainder: options.remainder ?? false,
  };
}

/**
 * Causal attention of K query groups per head on the same keys: q [B, Tq, K, H, C] and k, v [B, Tk, H, C] give
 * [B, Tq, K, H, C], with logits l_ij = q_i . k_j / sqrt(C) and query i at key position i + Tk - Tq.
 * Stick-breaking: a_ij = sigmoid(l_ij) prod_{j < m <= i} (1 - sigmoid(l_im)); a masked key consumes no stick. A row
 * without keys gives zeros (with `remainder` its own value). k and v may be one tensor. f64, f32 or bf16.
 * Gradients flow to q, k and v.
 * @throws ShapeError, DTypeError when arguments don't fit; ValueError for a stick-breaking option with softmax.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): Tensor {
  const settings = settingsOf(k, options);
  const keepState = !options.position && isGradEnabled() && [q, k, v].some((x) => x.requiresGrad);
  const [outId, rowStateId, liveId] = native.attention(
    settings.kind,
    q.id,
    k.id,
    v.id,
    options.keyMask?.id ?? null,
    options.documentStart?.id ?? null,
    settings.keyLength,
    settings.attendCurrent,
    settings.remainder,
    keepState,
    options.position?.id ?? null,
  );
  const out = wrap(outId);
  if (rowStateId === null) return out;
  const optional = {
    keyMask: options.keyMask,
    documentStart: options.documentStart,
    out: liveId === null ? out : null,
    live: liveId === null ? null : wrap(liveId),
  };
  const present = Object.entries(optional).flatMap(([name, x]) => (x ? [{ name, x }] : []));
  record([out], {
    name: 'attention',
    inputs: [q, k, v],
    saved: [q, k, v, wrap(rowStateId), ...present.map(({ x }) => x)],
    backward: backwardRule(
      settings,
      present.map(({ name }) => name),
    ),
  });
  return out;
}

/** The rule for saved q, k, v, rowState and the optional tensors of these names. */
function backwardRule(settings: Settings, names: readonly string[]): BackwardRule {
  return ([dout], saved) => {
    const [q, k, v, rowState] = saved.map(({ id }) => id) as [number, number, number, number];
    const optional = (name: string): number | null =>
      names.includes(name) ? (saved[4 + names.indexOf(name)] as Tensor).id : null;
    return native
      .attentionBackward(
        settings.kind,
        q,
        k,
        v,
        optional('keyMask'),
        optional('documentStart'),
        settings.keyLength,
        settings.attendCurrent,
        settings.remainder,
        optional('out'),
        rowState,
        optional('live'),
        (dout as Tensor).id,
      )
      .map((id) => wrap(id));
  };
}

/**
 * The weights themselves, for inspection: [B, K, H, Tq, Tk] in f32 (f64 for f64), zero where nothing is seen. The
 * arguments are those of `attention`; no gradient flows.
 */
export function attentionWeights(
  q: Tensor,
  k: Tensor,
  options: Omit<AttentionOptions, 'remainder' | 'position'> = {},
): Tensor {
  const { kind, keyLength, attendCurrent } = settingsOf(k, options);
  return wrap(
    native.attentionWeights(
      kind,
      q.id,
      k.id,
      options.keyMask?.id ?? null,
      options.documentStart?.id ?? null,
      keyLength,
      attendCurrent,
    ),
  );
}
