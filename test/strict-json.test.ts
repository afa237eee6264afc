import test from 'ava';
import { parseStrictJson } from '../lib/io/strict-json.js';

/** Marsaglia's xorshift: the same texts in every run. */
function randomIntegers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

const SAMPLE =
  ' {"a":[1,-0,2.5e-3,1E+2,true,false,null,"\\u00e9\\n\\"\\\\/x"],\t"":{},"é\u2028":[[],{"b":{"c":""}}],"n":-12.0}\r\n';
const ALPHABET = '{}[]",:\\/ 0123456789.eE+-truefalsn\u0001é';

test('agrees with JSON.parse on damaged text, in what is accepted and in the value', (t) => {
  const random = randomIntegers(1);
  const plain = (text: string) => JSON.stringify(parseStrictJson(text));
  t.is(plain(SAMPLE), JSON.stringify(JSON.parse(SAMPLE)));
  let accepted = 0;
  for (let n = 0; n < 20_000; n++) {
    const characters = [...SAMPLE];
    for (let edits = 1 + random(2); edits > 0; edits--) {
      const inserted = random(3) === 0 ? '' : ALPHABET.charAt(random(ALPHABET.length));
      characters.splice(random(characters.length), random(2), inserted);
    }
    const text = characters.join('');
    let expected: string;
    try {
      expected = JSON.stringify(JSON.parse(text));
    } catch {
      if (t.throws(() => parseStrictJson(text), { instanceOf: SyntaxError }) === undefined) return;
      continue;
    }
    accepted++;
    try {
      t.is(plain(text), expected);
    } catch (error) {
      t.regex((error as Error).message, /occurs again/);
    }
  }
  t.true(accepted > 1000 && accepted < 19_000);
});

test('a key twice is an error, and __proto__ is a key like any other', (t) => {
  t.throws(() => parseStrictJson('{"a":1,"b":{"a":1,"\\u0061":2}}'), {
    message: /"a" occurs again at character 18/,
  });
  const object = parseStrictJson('{"__proto__":{"x":1},"constructor":2}') as Record<string, unknown>;
  t.deepEqual(Object.keys(object), ['__proto__', 'constructor']);
  t.is(Object.getPrototypeOf(object), null);
  t.throws(() => parseStrictJson('['.repeat(100_000)), { message: /at most 64 levels/ });
});
