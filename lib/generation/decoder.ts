import { cacheAppend, copyInto, increment, narrow, noGrad, reshape, sampleToken } from '../autograd/index.js';
import type { CausalLM, CausalLMConfig } from '../model/causal-lm.js';
import type { KeyValueCache } from '../model/key-value-cache.js';
import { native } from '../native/load.js';
import { Program } from '../program.js';
import { keep, scope } from '../scope.js';
import { tensor, type Tensor } from '../tensor.js';
import type { Sampling } from './options.js';
import type { Prompt } from './prompt.js';

type Model = CausalLM<CausalLMConfig>;

/** What decoding starts from: the prompt and the first new token of each row, which the cache does not hold yet. */
export interface DecoderStart {
  prompt: Prompt;
  /** Holds the prompt; has room for what follows. */
  cache: KeyValueCache;
  sampling: Sampling;
}

/**
 * Draws a token per row and step, each from the ones before. The step is recorded once and replayed, so that a token
 * costs one call: token ids, positions, the text so far and the number of the draw stay on the device.
 */
export class Decoder {
  /** [B, 1] i32: what the next step reads, then what it drew. */
  readonly ids: Tensor;
  readonly #program: Program;
  readonly #tensors: Tensor[] = [];
  readonly #cache: KeyValueCache;

  /** The model is in evaluation mode. */
  constructor(model: Model, { prompt, cache, sampling }: DecoderStart) {
    const { ids, mask } = prompt;
    const B = ids.length;
    this.#cache = cache;
    const own = (values: number[] | Int32Array, shape: readonly number[]): Tensor => {
      const made = tensor(values, { dtype: 'i32', shape, device: model.device });
      keep(made);
      this.#tensors.push(made);
      return made;
    };
    this.ids = own(
      ids.map((row) => row.at(-1) as number),
      [B, 1],
    );
    const padding = (b: number): number => mask?.[b]?.filter((value) => value === 0).length ?? 0;
    // One tensor, so that one operation moves all of them on: position, number of the draw, position of each row.
    const counters = own([cache.length, 1, ...ids.map((_, b) => cache.length - padding(b))], [2 + B]);
    const S = cache.capacity + 1;
    const history = sampling.repetitionPenalty === 1 ? null : own(textSoFar(prompt, S), [B, S]);
    const keyMask = mask && own(keysSeen(mask, cache.capacity), [B, cache.capacity]);
    const record = (): void => {
      const position = narrow(counters, 0, 1);
      cache.cursor = { position, positions: reshape(narrow(counters, 2, B), [B, 1]), keyMask };
      const { logits } = model.forward({ inputIds: this.ids, cache, lastLogitsOnly: true });
      const { seed, ...rest } = sampling;
      const drawn = sampleToken(reshape(logits as Tensor, [B, model.config.vocab_size]), {
        ...rest,
        history,
        key: [seed, 0],
        step: narrow(counters, 1, 1),
      });
      copyInto(this.ids, reshape(drawn, [B, 1]));
      increment(counters);
      if (history) cacheAppend(reshape(drawn, [B, 1]), history, 0, position);
    };
    try {
      this.#program = new Program(model.device, () => noGrad(() => scope(record)));
    } catch (error) {
      this.#free();
      throw error;
    } finally {
      cache.cursor = null;
    }
  }

  /**
   * Enqueues a step and waits for its tokens, one per row. The next step may be enqueued before this one has run.
   * @throws KernelError
   */
  step(): Promise<number[]> {
    this.#program.run();
    this.#cache.advance(1);
    const drawn = new Int32Array(this.ids.numel);
    return native.read(this.ids.id, drawn, false).then(() => Array.from(drawn));
  }

  dispose(): void {
    this.#program.dispose();
    this.#free();
  }

  #free(): void {
    for (const own of this.#tensors) own.dispose();
  }
}

/** [B, S] with room for what follows: -1, as is padding. */
function textSoFar({ ids, mask }: Prompt, S: number): Int32Array {
  const text = new Int32Array(ids.length * S).fill(-1);
  ids.forEach((row, b) => {
    row.forEach((id, t) => {
      if (mask?.[b]?.[t] !== 0) text[b * S + t] = id;
    });
  });
  return text;
}

/** [B, Tk]: whatever follows the prompt is seen. */
function keysSeen(mask: readonly (readonly number[])[], Tk: number): Int32Array {
  const seen = new Int32Array(mask.length * Tk).fill(1);
  mask.forEach((row, b) => seen.set(row.slice(0, Tk), b * Tk));
  return seen;
}
