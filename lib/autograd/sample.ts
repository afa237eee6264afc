import { ValueError } from '../errors.js';
import { native } from '../native/load.js';
import type { RandomKey } from '../native/binding.js';
import { wrap, type Tensor } from '../tensor.js';

/** How a token is drawn from logits. */
export interface SampleTokenOptions {
  /** 0 takes the first maximum, without chance. Default 1. */
  temperature?: number;
  /** Keeps the topK best tokens (and ties with the last of them); 0, the default, keeps all. */
  topK?: number;
  /** Keeps the smallest set of best tokens whose probabilities sum to at least this, in (0, 1]. Default 1. */
  topP?: number;
  /** Divides positive and multiplies negative logits of tokens in `history`. Default 1. */
  repetitionPenalty?: number;
  /** [B, S] i32: the tokens of each row so far, -1 for padding. */
  history?: Tensor | null;
  /** Of the draw, of which each row has its own; needed unless temperature is 0. */
  key?: RandomKey;
  /** [1] i32: is added to the key's stream when the kernel runs. */
  step?: Tensor | null;
}

/**
 * One token per row of logits [B, V] f32 or f64, as i32 [B]; the processors and their order are Hugging Face's:
 * repetition penalty, temperature, top-k, top-p. Not differentiable. A row with a NaN, or with nothing but -infinity,
 * makes the result fail with a KernelError.
 * @throws ShapeError, DTypeError; ValueError for options out of range and for a draw without key.
 */
export function sampleToken(
  logits: Tensor,
  { temperature = 1, topK = 0, topP = 1, repetitionPenalty = 1, history, key, step }: SampleTokenOptions,
): Tensor {
  if (temperature !== 0 && !key)
    throw new ValueError('sampleToken: no key is given, expected one to draw with');
  return wrap(
    native.sampleToken(
      logits.id,
      history?.id ?? null,
      temperature,
      topK,
      topP,
      repetitionPenalty,
      key ?? [0, 0],
      step?.id ?? null,
    ),
  );
}
