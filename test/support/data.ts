import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { ExecutionContext } from 'ava';
import { Tokenizer } from '../../lib/data/tokenizer.js';
import { createRandom } from '../../lib/data/random.js';

/** A directory that is removed when the test ends. */
export async function temporaryDir(t: ExecutionContext): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), 'moduleformer-test-'));
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

/** Sentences of made-up words whose frequencies fall as in natural text; the same for the same seed. */
export function syntheticTexts(count: number, seed = 1, words = 40): string[] {
  const random = createRandom(seed);
  const lexicon = Array.from({ length: 400 }, () =>
    Array.from({ length: 2 + random.below(7) }, () => 'etaoinshrdlucmfw'[random.below(16)]).join(''),
  );
  const word = () => lexicon[Math.floor(lexicon.length * random.next() ** 2)];
  return Array.from({ length: count }, () => `${Array.from({ length: words }, word).join(' ')}.`);
}

/** A tokenizer of <|endoftext|> = 0 and the letters from a on as `before` + 1, + 2 ...; it has no other characters. */
export function letterTokenizer(letters = 26, eos = true, before = 0): Tokenizer {
  const tokens = [
    '<|endoftext|>',
    ...Array.from({ length: before }, (_, i) => `<${i}>`),
    ...Array.from({ length: letters }, (_, i) => String.fromCharCode(97 + i)),
  ];
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  return new Tokenizer({
    added_tokens: eos ? [{ id: 0, content: '<|endoftext|>' }] : [],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      unk_token: null,
      vocab: Object.fromEntries(tokens.map((x, id) => [x, id])),
      merges: [],
    },
  });
}
