/**
 * Fine-tuning for classification on real text: `npx tsx examples/classification.ts [--help]`
 *
 * Tells the four kinds of prose in the Brown corpus apart (press, general, learned, fiction) by passages of 64 tokens. A
 * language model is trained on the texts first, or taken from --backbone (a checkpoint with its tokenizer, as
 * `npm run quickstart` leaves it); a score head takes the place of its LM head, and all of it is fine-tuned. Every
 * fifth text is held out from both. Prints the accuracy on those passages beside that of the most frequent kind.
 */
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import {
  AdamW,
  clipGradNorm,
  cosineSchedule,
  DataLoader,
  describeBackend,
  ModuleFormerConfig,
  ModuleFormerForCausalLM,
  ModuleFormerForSequenceClassification,
  noGrad,
  presetConfig,
  scope,
  TextDataset,
  Tokenizer,
  Trainer,
  trainTokenizer,
  weightDecayGroups,
} from '../lib/index.js';
import { writeBrown } from './quickstart/brown.js';

const { values: flags } = parseArgs({
  options: {
    backbone: { type: 'string' },
    'pretraining-steps': { type: 'string', default: '1000' },
    steps: { type: 'string', default: '500' },
    texts: { type: 'string', default: '500' },
    out: { type: 'string', default: 'runs/classification' },
    help: { type: 'boolean', default: false },
  },
});
if (flags.help) {
  console.log('Options: --backbone DIR, --pretraining-steps N, --steps N, --texts N (of 500), --out DIR');
  process.exit();
}
const KINDS = ['press', 'general', 'learned', 'fiction'];
const LENGTH = 64;
const BATCH = 16;

interface Passage {
  ids: number[];
  kind: number;
}

/** The kind of prose by the letter of the sample: ca ... cr. */
function kindOf(name: string): number {
  const letter = name[1] ?? '';
  if (letter <= 'c') return 0;
  if (letter <= 'h') return 1;
  return letter === 'j' ? 2 : 3;
}

/** Texts of all kinds, evenly taken; every fifth of them goes to `heldOut`. */
async function prepareTexts(): Promise<{ train: string[]; heldOut: string[] }> {
  const all = path.join(flags.out, 'brown');
  await writeBrown(all);
  const names = (await readdir(all)).sort();
  const stride = Math.max(1, Math.floor(names.length / Number(flags.texts)));
  const chosen = names.filter((_, i) => i % stride === 0).map((name) => path.join(all, name));
  return { train: chosen.filter((_, i) => i % 5 !== 0), heldOut: chosen.filter((_, i) => i % 5 === 0) };
}

/** A language model of the texts, and its tokenizer; returns their directory. */
async function pretrain(files: string[]): Promise<string> {
  const tokenizer = await trainTokenizer({ files, vocabSize: 1024 });
  const outDir = path.join(flags.out, 'data');
  const dataset = await TextDataset.build({ files, tokenizer, outDir });
  const config = new ModuleFormerConfig({ ...presetConfig('tiny').toJSON(), vocab_size: 1024 });
  const model = new ModuleFormerForCausalLM(config, { seed: 1 });
  const steps = Number(flags['pretraining-steps']);
  await new Trainer({
    model,
    train: new DataLoader({ dataset, batchSize: 8, sequenceLength: 128, seed: 1 }),
    optimizer: new AdamW(weightDecayGroups(model, 0.1), { betas: [0.9, 0.95] }),
    schedule: cosineSchedule({
      lr: 6e-3,
      warmupSteps: Math.ceil(steps / 20),
      totalSteps: steps,
      finalRatio: 0.05,
    }),
    steps,
    progress: { backend: false },
  }).run();
  const backbone = path.join(flags.out, 'backbone');
  await model.savePretrained(backbone);
  await tokenizer.save(backbone);
  return backbone;
}

/** Whole passages of LENGTH tokens; what is left at the end of a text is dropped. */
async function passagesOf(files: string[], tokenizer: Tokenizer): Promise<Passage[]> {
  const passages: Passage[] = [];
  for (const file of files) {
    const ids = tokenizer.encode(await readFile(file, 'utf8'));
    const kind = kindOf(path.basename(file));
    for (let at = 0; at + LENGTH <= ids.length; at += LENGTH)
      passages.push({ ids: ids.slice(at, at + LENGTH), kind });
  }
  return passages;
}

async function fineTune(model: ModuleFormerForSequenceClassification, train: Passage[]): Promise<void> {
  const steps = Number(flags.steps);
  const optimizer = new AdamW(weightDecayGroups(model, 0.1), { betas: [0.9, 0.95] });
  const schedule = cosineSchedule({
    lr: 1e-3,
    warmupSteps: Math.ceil(steps / 20),
    totalSteps: steps,
    finalRatio: 0.05,
  });
  model.train();
  for (let step = 0; step < steps; step++) {
    // Steps by a large prime visit all passages once before any comes again, those of a text far from each other.
    const batch = Array.from(
      { length: BATCH },
      (_, i) => train[((step * BATCH + i) * 7919) % train.length] as Passage,
    );
    const loss = scope(() => {
      const inputs = { inputIds: batch.map(({ ids }) => ids), labels: batch.map(({ kind }) => kind) };
      const { loss } = model.forward(inputs);
      loss?.backward();
      clipGradNorm(model.parameters(), 1);
      optimizer.lr = schedule(step);
      optimizer.step();
      optimizer.zeroGrad();
      return loss?.detach();
    });
    if ((step + 1) % 50 === 0)
      console.log(`fine-tuning step ${step + 1}: loss ${(await loss?.item())?.toFixed(3)}`);
    loss?.dispose();
  }
  model.eval();
}

/** The share of passages whose kind has the largest logit. */
async function accuracy(model: ModuleFormerForSequenceClassification, passages: Passage[]): Promise<number> {
  let right = 0;
  for (let at = 0; at < passages.length; at += BATCH) {
    const batch = passages.slice(at, at + BATCH);
    const logits = noGrad(() => scope(() => model.forward({ inputIds: batch.map(({ ids }) => ids) }).logits));
    const scores = await logits.data();
    logits.dispose();
    batch.forEach(({ kind }, b) => {
      const row = Array.from(scores.subarray(b * KINDS.length, (b + 1) * KINDS.length), Number);
      if (row.indexOf(Math.max(...row)) === kind) right++;
    });
  }
  return right / passages.length;
}

/** The share of the kind that is the most frequent one in `train`. */
function majorityAccuracy(train: Passage[], heldOut: Passage[]): { kind: string; share: number } {
  const count = (kind: number, passages: Passage[]): number =>
    passages.filter((one) => one.kind === kind).length;
  const counts = KINDS.map((_, kind) => count(kind, train));
  const most = counts.indexOf(Math.max(...counts));
  return { kind: KINDS[most] as string, share: count(most, heldOut) / heldOut.length };
}

console.log(`backend: ${describeBackend().summary}`);
const texts = await prepareTexts();
const backbone = flags.backbone ?? (await pretrain(texts.train));
const tokenizer = await Tokenizer.fromFile(backbone);
const train = await passagesOf(texts.train, tokenizer);
const heldOut = await passagesOf(texts.heldOut, tokenizer);
const model = await ModuleFormerForSequenceClassification.fromPretrained(backbone, {
  newHead: { numLabels: KINDS.length, problemType: 'single_label_classification' },
});
console.log(`${train.length} passages to learn from, ${heldOut.length} held out; kinds: ${KINDS.join(', ')}`);
await fineTune(model, train);
const majority = majorityAccuracy(train, heldOut);
const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
console.log(`accuracy on held-out passages: ${percent(await accuracy(model, heldOut))}`);
console.log(`always ${majority.kind}:                ${percent(majority.share)}`);
await model.savePretrained(path.join(flags.out, 'classifier'));
await tokenizer.save(path.join(flags.out, 'classifier'));
