/** The worker thread: trains, tells the main thread of every step, and stops when told to. */
import { parentPort, workerData } from 'node:worker_threads';
import {
  AdamW,
  cosineSchedule,
  DataLoader,
  describeBackend,
  ModuleFormerConfig,
  ModuleFormerForCausalLM,
  presetConfig,
  TextDataset,
  Trainer,
  trainTokenizer,
  weightDecayGroups,
} from '../../lib/index.js';
import type { Message, TrainingRequest } from './messages.js';

const { files, runDir, steps } = workerData as TrainingRequest;
const controller = new AbortController();
parentPort?.once('message', () => controller.abort());
const send = (message: Message): void => parentPort?.postMessage(message);

const tokenizer = await trainTokenizer({ files, vocabSize: 1024 });
const dataset = await TextDataset.build({ files, tokenizer, outDir: `${runDir}/data`, delimiter: '\n\n' });
const config = new ModuleFormerConfig({ ...presetConfig('tiny').toJSON(), vocab_size: tokenizer.vocabSize });
const model = new ModuleFormerForCausalLM(config, { seed: 1 });
send({ type: 'started', backend: describeBackend(model.device).summary });

const { status, step } = await new Trainer({
  model,
  tokenizer,
  train: new DataLoader({ dataset, batchSize: 8, sequenceLength: 128, seed: 1 }),
  optimizer: new AdamW(weightDecayGroups(model, 0.1), { betas: [0.9, 0.95] }),
  schedule: cosineSchedule({
    lr: 3e-3,
    warmupSteps: Math.ceil(steps / 20),
    totalSteps: steps,
    finalRatio: 0.1,
  }),
  steps,
  runDir,
  onStep: ({ step, loss, tokensPerSecond }) => send({ type: 'step', step, steps, loss, tokensPerSecond }),
  signal: controller.signal,
}).resume(); // goes on where an earlier start was stopped
send({ type: 'ended', status, step });
parentPort?.close();
