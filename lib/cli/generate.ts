import { text } from 'node:stream/consumers';
import { Tokenizer } from '../data/tokenizer.js';
import { DataError } from '../errors.js';
import { stream } from '../generation/generate.js';
import { prepareBackend } from './backend.js';
import { printJson } from './command.js';
import type { GenerateFlags } from './generate-command.js';
import { loadCausalLM, resolveCheckpoint } from './models.js';
import { interruptible } from './signals.js';

export async function generateText(path: string, flags: GenerateFlags): Promise<void> {
  const { maxNewTokens, temperature, topK, topP, repetitionPenalty, seed, dtype, device } = flags;
  prepareBackend(flags);
  const checkpoint = await resolveCheckpoint(path);
  const tokenizer = await Tokenizer.fromFile(flags.tokenizer ?? checkpoint);
  const prompt = flags.prompt ?? (await readStandardInput());
  const model = await loadCausalLM(checkpoint, {
    device,
    ...(dtype === undefined ? {} : { dtype }),
    ...(flags.quantize === undefined ? {} : { quantize: flags.quantize }),
  });
  tokenizer.assertFits(model.config.vocab_size);
  const decoder = tokenizer.createDecodeStream({ skipSpecialTokens: true });
  const write = (piece: string): void => void (flags.json || process.stdout.write(piece));
  const tokens: number[] = [];
  write(prompt);
  await interruptible('stopping', async (signal) => {
    try {
      for await (const token of stream(model, {
        inputIds: [promptIds(prompt, tokenizer)],
        maxNewTokens,
        temperature,
        topK,
        topP,
        repetitionPenalty,
        seed,
        signal,
        ...(flags.ignoreEos ? { stopTokens: [] } : {}),
      })) {
        tokens.push(token);
        write(decoder.push(token));
      }
    } catch (error) {
      if (!signal.aborted || error !== signal.reason) throw error;
    }
  });
  write(`${decoder.end()}\n`);
  if (!flags.json) return;
  const generated = tokenizer.decode(tokens, { skipSpecialTokens: true });
  printJson({ checkpoint, prompt, text: generated, tokens });
}

/** The ids of the prompt; an empty one begins a new document. */
function promptIds(prompt: string, tokenizer: Tokenizer): number[] {
  const ids = tokenizer.encode(prompt);
  if (ids.length > 0) return ids;
  const start = tokenizer.eosId ?? tokenizer.bosId;
  if (start === undefined) {
    throw new DataError('the prompt is empty and the tokenizer has no token to begin a text with');
  }
  return [start];
}

async function readStandardInput(): Promise<string> {
  if (process.stdin.isTTY) throw new DataError('no prompt: give --prompt, or a text on standard input');
  return (await text(process.stdin)).replace(/\n$/, '');
}
