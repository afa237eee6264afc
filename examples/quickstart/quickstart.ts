/**
 * From nothing to generated text: `npm run quickstart`, or `npm run quickstart -- --quick` for a taste of it.
 *
 * Trains a tokenizer and a ModuleFormer on the Brown corpus, compares its perplexity on held-out texts with that of
 * n-gram models of the same texts, and leaves `runs/quickstart` with a checkpoint, metrics and a report. Exits with
 * code 1 when the model has not learned what it should have.
 */
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import {
  AdamW,
  cosineSchedule,
  countParameters,
  DataLoader,
  evaluateNgram,
  KneserNeyBigramModel,
  ModuleFormerConfig,
  ModuleFormerForCausalLM,
  TextDataset,
  Trainer,
  trainTokenizer,
  UnigramModel,
  weightDecayGroups,
  writeReport,
  writeSamples,
  writeSummary,
  type Tokenizer,
} from '../../lib/index.js';
import { writeBrown } from './brown.js';

const PROMPTS = ['The jury said', 'In the morning', 'She looked at him and'];
const VOCAB_SIZE = 1024;
const SHAPE = { batchSize: 8, sequenceLength: 128 };
/** About two minutes of training on two cores with AVX-512; a few seconds. */
const STEPS = { full: 2400, quick: 100 };

const { values: flags } = parseArgs({ options: { quick: { type: 'boolean', default: false } } });
const runDir = path.resolve('runs/quickstart');
const steps = flags.quick ? STEPS.quick : STEPS.full;

await rm(runDir, { recursive: true, force: true });
const { tokenizer, dataset } = await prepareData();
const validation = new DataLoader({ dataset, ...SHAPE, split: 'validation' });
const baselines = await nGramPerplexities();

const model = buildModel();
const parameters = countParameters(model.config);
say(`${count(parameters.total)} parameters, ${count(parameters.active)} of them active per token`);
const result = await new Trainer({
  model,
  tokenizer,
  train: new DataLoader({ dataset, ...SHAPE, seed: 1 }),
  validation,
  optimizer: new AdamW(weightDecayGroups(model, 0.1), { betas: [0.9, 0.95] }),
  schedule: cosineSchedule({
    lr: 6e-3,
    warmupSteps: Math.ceil(steps / 20),
    totalSteps: steps,
    finalRatio: 0.05,
  }),
  steps,
  runDir,
  checkpointEvery: 500,
  evaluateEvery: flags.quick ? steps : steps / 4,
  progress: true,
}).run();

const perplexity = result.validation?.perplexity ?? Infinity;
say(`
Perplexity on the held-out texts (lower is better)
  unigram            ${baselines.unigram.toFixed(1).padStart(7)}
  Kneser-Ney bigram  ${baselines.kneserNeyBigram.toFixed(1).padStart(7)}
  this model         ${perplexity.toFixed(1).padStart(7)}
`);
await generateSamples(tokenizer);
await writeSummary(runDir, {
  ...(result.validation ? { validation: result.validation } : {}),
  baselines,
  parameters: parameters.total,
  activeParameters: parameters.active,
});
const { tokens, elapsedSeconds, checkpoint } = result;
say(
  `${count(tokens)} tokens in ${elapsedSeconds.toFixed(0)} s: ${count(Math.round(tokens / elapsedSeconds))} a second`,
);
say(`report:     ${await writeReport(runDir)}`);
say(`checkpoint: ${checkpoint}`);
say(`go on with: npm run moduleformer -- generate ${path.relative('.', runDir)} --prompt "The President"`);

const [rival, bound] = flags.quick ? ['unigram', baselines.unigram] : ['bigram', baselines.kneserNeyBigram];
if (perplexity >= 0.95 * bound) {
  say(`The model has not learned enough: its perplexity is not well below the ${rival} model's.`);
  process.exitCode = 1;
}

async function prepareData(): Promise<{ tokenizer: Tokenizer; dataset: TextDataset }> {
  const files = path.join(runDir, 'brown');
  say(`Brown corpus: ${await writeBrown(files)} texts of American prose`);
  const tokenizer = await trainTokenizer({ files, vocabSize: VOCAB_SIZE });
  const outDir = path.join(runDir, 'data');
  const dataset = await TextDataset.build({ files, tokenizer, outDir, validationFraction: 0.05 });
  const { train, validation } = dataset;
  say(
    `${count(train.tokenCount)} tokens to train on, ${count(validation.tokenCount)} held out; ${VOCAB_SIZE} token ids`,
  );
  return { tokenizer, dataset };
}

/** Of models that count, on the tokens that the language model is evaluated on. */
async function nGramPerplexities(): Promise<{ unigram: number; kneserNeyBigram: number }> {
  const unigram = await UnigramModel.train(dataset.train, VOCAB_SIZE);
  const bigram = await KneserNeyBigramModel.train(dataset.train, VOCAB_SIZE);
  return {
    unigram: (await evaluateNgram(unigram, validation)).perplexity,
    kneserNeyBigram: (await evaluateNgram(bigram, validation)).perplexity,
  };
}

function buildModel(): ModuleFormerForCausalLM {
  const config = new ModuleFormerConfig({
    vocab_size: VOCAB_SIZE,
    block_size: SHAPE.sequenceLength,
    n_embd: 192,
    n_layer: 3,
    n_head: 4,
    att_hidden: 192,
    ffd_hidden: 192,
    gating_size: 64,
    n_att_experts: 4,
    n_mlp_experts: 8,
    aux_loss_weight: 0.01,
    bos_token_id: 0,
    eos_token_id: 0,
  });
  return new ModuleFormerForCausalLM(config, { seed: 1 });
}

async function generateSamples(tokenizer: Tokenizer): Promise<void> {
  const samples = [];
  for (const [seed, prompt] of PROMPTS.entries()) {
    const inputIds = [tokenizer.encode(prompt)];
    const [ids = []] = await model.generate({
      inputIds,
      maxNewTokens: 80,
      temperature: 0.8,
      topP: 0.95,
      seed,
    });
    const text = tokenizer.decode(ids, { skipSpecialTokens: true });
    say(`${prompt}${text}\n`);
    samples.push({ prompt, text, step: result.step });
  }
  await writeSamples(runDir, samples);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function count(value: number): string {
  return value.toLocaleString('en');
}
