import { noGrad, reshape, sampleToken } from '../autograd/index.js';
import { ShapeError } from '../errors.js';
import type { CausalLM, CausalLMConfig } from '../model/causal-lm.js';
import { KeyValueCache } from '../model/key-value-cache.js';
import { scope } from '../scope.js';
import { tensor, Tensor } from '../tensor.js';
import { Program } from '../program.js';
import { unlessAborted } from './abort.js';
import { Decoder } from './decoder.js';
import {
  checkMaxNewTokens,
  checkSampling,
  checkStopTokens,
  type GenerationOptions,
  type Sampling,
} from './options.js';
import { readPrompt, type Prompt } from './prompt.js';

type Model = CausalLM<CausalLMConfig>;

/**
 * Continues a batch of prompts, a token per row and step. A row that has ended gives null; the iteration ends with the
 * last row. A stop token is given out before its row ends.
 *
 * The model generates in evaluation mode and without recording, whatever it is doing otherwise: between steps it may
 * train. The token after the one that is given out is on its way already, by the weights as they were.
 * @throws ValueError, ShapeError for options out of range and prompts that do not fit the model, KernelError when the
 *   model's logits are not numbers, and the signal's reason when it is aborted.
 */
export async function* streamBatch(
  model: Model,
  options: GenerationOptions,
): AsyncGenerator<(number | null)[], void, undefined> {
  const sampling = checkSampling(options);
  const maxNewTokens = checkMaxNewTokens(options);
  const stopTokens = checkStopTokens(options, model.config);
  const { signal } = options;
  const prompt = await readPrompt(options.inputIds, options.attentionMask);
  const ended = prompt.ids.map(() => false);
  // The last token is given out and never fed back.
  const cache = new KeyValueCache((prompt.ids[0] as number[]).length + maxNewTokens - 1);
  const replays = Program.canReplay(model.device);
  let decoder: Decoder | null = null;
  // Enqueued before the tokens that it follows are known here, so that the device never waits for JavaScript.
  let ahead: Promise<number[]> | null = null;
  try {
    let input = prompt.ids;
    for (let step = 0; step < maxNewTokens; step++) {
      signal?.throwIfAborted();
      if (step === 1 && replays) {
        decoder = evaluating(model, () => new Decoder(model, { prompt, cache, sampling }));
      }
      const next = ahead ?? decoder?.step() ?? nextTokens(model, { input, prompt, cache, sampling, step });
      ahead = decoder && step + 1 < maxNewTokens ? decoder.step() : null;
      ahead?.catch(() => undefined); // nobody may come to wait for it
      const tokens = await unlessAborted(signal, next);
      yield tokens.map((token, b) => (ended[b] ? null : token));
      tokens.forEach((token, b) => (ended[b] ||= stopTokens.has(token)));
      if (ended.every(Boolean)) return;
      if (decoder) continue;
      input = tokens.map((token) => [token]);
      tokens.forEach((token, b) => {
        prompt.ids[b]?.push(token);
        prompt.mask?.[b]?.push(1);
      });
    }
  } finally {
    decoder?.dispose();
    cache.dispose();
  }
}

/**
 * Continues one prompt, token by token.
 * @throws as `streamBatch`, and ShapeError when there are several prompts.
 */
export async function* stream(
  model: Model,
  options: GenerationOptions,
): AsyncGenerator<number, void, undefined> {
  const { inputIds } = options;
  const rows = inputIds instanceof Tensor ? inputIds.shape[0] : inputIds.length;
  if (rows !== 1) throw new ShapeError(`stream: ${rows} prompts, expected one; streamBatch takes several`);
  for await (const [token] of streamBatch(model, options)) yield token as number;
}

/**
 * Continues every prompt up to `maxNewTokens` tokens or a stop token, which is included.
 * @returns per row its new tokens, without padding.
 * @throws as `streamBatch`.
 */
export async function generate(model: Model, options: GenerationOptions): Promise<number[][]> {
  const rows: number[][] = [];
  for await (const tokens of streamBatch(model, options)) {
    tokens.forEach((token, b) => {
      const row = (rows[b] ??= []);
      if (token !== null) row.push(token);
    });
  }
  return rows;
}

interface Step {
  /** What the cache does not hold yet: [B, T] of the prompt, then [B, 1]. */
  input: readonly (readonly number[])[];
  /** The prompt and the tokens so far. */
  prompt: Prompt;
  cache: KeyValueCache;
  sampling: Sampling;
  step: number;
}

async function nextTokens(model: Model, step: Step): Promise<number[]> {
  const tokens = evaluating(model, () => noGrad(() => scope(() => enqueueStep(model, step))));
  try {
    return Array.from(await tokens.data(), Number);
  } finally {
    tokens.dispose();
  }
}

function enqueueStep(model: Model, { input, prompt, cache, sampling, step }: Step): Tensor {
  const { logits } = model.forward({
    inputIds: input,
    ...(prompt.mask ? { attentionMask: prompt.mask } : {}),
    cache,
    lastLogitsOnly: true,
  });
  const { seed, ...rest } = sampling;
  return sampleToken(reshape(logits as Tensor, [input.length, model.config.vocab_size]), {
    ...rest,
    history: sampling.repetitionPenalty === 1 ? null : history(prompt, model),
    key: [seed, step],
  });
}

/** The tokens of every row so far, [B, S] i32, with -1 for padding. */
function history({ ids, mask }: Prompt, model: Model): Tensor {
  const rows = ids.map((row, b) => row.map((id, t) => (mask?.[b]?.[t] === 0 ? -1 : id)));
  return tensor(rows, { dtype: 'i32', device: model.device });
}

function evaluating<T>(model: Model, fn: () => T): T {
  const { training } = model;
  if (training) model.eval();
  try {
    return fn();
  } finally {
    if (training) model.train();
  }
}
