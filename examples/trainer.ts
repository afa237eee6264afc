/**
 * Training with the Trainer: `npx tsx examples/trainer.ts FILE...` (text or JSONL files). Stop it in any way, `kill -9`
 * included, and start it again: it goes on where it was, and ends with the same bits.
 */
import {
  AdamW,
  cosineSchedule,
  DataLoader,
  ModuleFormerConfig,
  ModuleFormerForCausalLM,
  presetConfig,
  TextDataset,
  Trainer,
  trainTokenizer,
  weightDecayGroups,
  writeReport,
} from '../lib/index.js';

const files = process.argv.slice(2);
const runDir = 'runs/example';
const steps = 500;

// The same files give the same tokenizer, and the data set is made once.
const tokenizer = await trainTokenizer({ files, vocabSize: 1024 });
const dataset = await TextDataset.build({ files, tokenizer, outDir: `${runDir}/data`, delimiter: '\n\n' });
const config = new ModuleFormerConfig({ ...presetConfig('tiny').toJSON(), vocab_size: tokenizer.vocabSize });
const model = new ModuleFormerForCausalLM(config, { seed: 1 });
const rows = { dataset, batchSize: 8, sequenceLength: 128 };

const controller = new AbortController();
process.once('SIGINT', () => controller.abort());

const trainer = new Trainer({
  model,
  tokenizer,
  train: new DataLoader({ ...rows, seed: 1 }),
  validation: new DataLoader({ ...rows, split: 'validation' }),
  optimizer: new AdamW(weightDecayGroups(model, 0.1), { betas: [0.9, 0.95] }),
  schedule: cosineSchedule({ lr: 3e-3, warmupSteps: 25, totalSteps: steps, finalRatio: 0.1 }),
  steps,
  runDir,
  checkpointEvery: 100,
  evaluateEvery: 100,
  progress: true,
  signal: controller.signal,
});
const { status, step, validation, checkpoint } = await trainer.resume(); // starts when there is no checkpoint yet
console.log(`${status} after step ${step}, perplexity ${validation?.perplexity.toFixed(1)}, ${checkpoint}`);
console.log(`report: ${await writeReport(runDir)}`);
