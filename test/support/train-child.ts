// A run of the tiny model in a process of its own, to be killed: tsx train-child.ts DATA_DIR RUN_DIR STEPS THREADS.
// Prints `step N` after each step. Starts or resumes, and ends with the last step.
import { TextDataset } from '../../lib/data/dataset.js';
import { native } from '../../lib/native/load.js';
import { Trainer } from '../../lib/training/trainer.js';
import { tinyRun } from './training.js';

const [dataDir = '', runDir = '', steps = '1', threads = '1'] = process.argv.slice(2);
native.setNumThreads(Number(threads));
const trainer = new Trainer(
  tinyRun(await TextDataset.open(dataDir), {
    runDir,
    totalSteps: Number(steps),
    checkpointEvery: 1,
    onStep: ({ step }) => void process.stdout.write(`step ${step}\n`),
  }),
);
await trainer.resume();
