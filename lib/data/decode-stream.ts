import type { Tokenizer } from './tokenizer.js';

/** What a decoder shows for bytes that are no (or not yet a) UTF-8 character. */
const REPLACEMENT = '\uFFFD';

/**
 * Turns token ids into text as they arrive. A character whose bytes are spread over several tokens is held back until
 * it is complete, so that the deltas concatenate to exactly `tokenizer.decode(ids)`.
 */
export class DecodeStream {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecialTokens: boolean;
  // Ids whose text was emitted last stay as context: some decoders treat the first token of a text specially.
  #context: number[] = [];
  #pending: number[] = [];

  /** With `skipSpecialTokens` (default false) special tokens give no text. */
  constructor(tokenizer: Tokenizer, options: { skipSpecialTokens?: boolean } = {}) {
    this.#tokenizer = tokenizer;
    this.#skipSpecialTokens = options.skipSpecialTokens ?? false;
  }

  /** Takes the next id or ids; returns the text that became certain, possibly ''. */
  push(ids: number | readonly number[]): string {
    this.#pending = this.#pending.concat(ids);
    const delta = this.#delta();
    return delta.endsWith(REPLACEMENT) ? '' : this.#emit(delta);
  }

  /** The text of what is still held back; bytes that never became a character come as U+FFFD. */
  end(): string {
    const delta = this.#emit(this.#delta());
    this.#context = [];
    return delta;
  }

  #delta(): string {
    const options = { skipSpecialTokens: this.#skipSpecialTokens };
    const before = this.#tokenizer.decode(this.#context, options);
    return this.#tokenizer.decode([...this.#context, ...this.#pending], options).slice(before.length);
  }

  #emit(delta: string): string {
    if (delta !== '') {
      this.#context = this.#pending;
      this.#pending = [];
    }
    return delta;
  }
}
