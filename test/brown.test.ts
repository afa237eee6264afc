import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import test from 'ava';
import { brownText, writeBrown } from '../examples/quickstart/brown.js';
import { temporaryDir } from './support/data.js';

const cases: Record<string, [tagged: string, text: string]> = {
  punctuation: ['He/pps said/vbd ,/, yes/rb ;/. ;/.\nno/rb :/: why/wrb ?/. ?/.', 'He said, yes; no: why?'],
  'double quotes': [
    "``/`` Oh/uh ,/, no/rb ''/'' ,/, he/pps said/vbd ,/, ``/`` no/rb ''/'' ?/. ?/.",
    '"Oh, no," he said, "no?"',
  ],
  'single quotes': ["say/vb ,/, '/' Don't/do* '/' ./. So/rb '/' a/at b/nn '/'", "say, 'Don't'. So 'a b'"],
  brackets: ['one/cd (/( a/at b/nn )/) [/( c/nn ]/) two/cd', 'one (a b) [c] two'],
  slashes: ['and/or/cc 1/2/cd counts/nns //in minute/nn', 'and/or 1/2 counts/minute'],
  inches: ["1/4''/nn ,/, 3/4''/nn", '1/4", 3/4"'],
  abbreviations: ["Allen/np Jr./np ./.\n``/`` The/at U.S./np ''/'' ./.", 'Allen Jr. "The U.S."'],
  'paragraphs and headlines': [
    '\n\n\tOne/cd ./.\nTwo/cd ./.\n\n\nA/at-hl head/nn-hl\nThree/cd ./.\n\n\tFour/cd ./.\n',
    'One. Two.\n\nA head\n\nThree.\n\nFour.',
  ],
  datelines: ['\nAustin/np-hl ,/,-hl Texas/np-hl\n--/-- It/pps rains/vbz ./.', 'Austin, Texas -- It rains.'],
};

for (const [name, [tagged, text]] of Object.entries(cases)) {
  test(name, (t) => t.is(brownText(tagged), `${text}\n`));
}

test('the whole corpus becomes 500 texts without tags', async (t) => {
  const dir = await temporaryDir(t);
  t.is(await writeBrown(dir), 500);
  const files = await readdir(dir);
  t.is(files.length, 500);
  const texts = await Promise.all(files.map((file) => readFile(path.join(dir, file), 'utf8')));
  const words = texts.join(' ').split(/\s+/).length;
  t.true(words > 1_000_000 && words < 1_030_000);
  t.true(texts[0]?.startsWith('The Fulton County Grand Jury said Friday an investigation of Atlanta'));
  const tagged = texts.filter((text) => /\w\/(nn|at|in|vb|jj|cc|np)\b(?![./])/.test(text));
  t.deepEqual(tagged, []);
});
