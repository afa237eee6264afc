import { Option, type Command } from 'commander';
import { decimal, integer } from './command.js';

export interface TrainFlags {
  runDir?: string;
  resume?: string | true;
  preset?: string;
  from?: string;
  data?: string[];
  textField?: string;
  delimiter?: string;
  tokenizer?: string;
  vocabSize?: number;
  sequenceLength?: number;
  batchSize?: number;
  accumulationSteps?: number;
  steps?: number;
  lr?: number;
  schedule?: string;
  warmupSteps?: number;
  weightDecay?: number;
  clipNorm?: number;
  concentration?: number;
  balanceOver?: string;
  frozenBase?: string;
  evaluateEvery?: number;
  checkpointEvery?: number;
  keepCheckpoints?: number;
  dtype?: string;
  device?: string;
  seed?: number;
  threads?: number;
  json?: boolean;
}

export function addTrainCommand(program: Command): void {
  program
    .command('train')
    .description('Train a model, or go on with a run that was interrupted.')
    .argument('[config]', 'a JSON file with the settings below and more; flags come before what it says')
    .option('--run-dir <dir>', 'where checkpoints, metrics and the report go')
    .option('--resume [dir]', 'continue the run in this directory, or in --run-dir, bit for bit')
    .option('--preset <name>', 'the size of the model: tiny, small, base, MoLM-350M-4B, ...')
    .option('--from <checkpoint>', 'start from these weights instead of random ones')
    .option('--data <file...>', 'text or JSONL files, directories or patterns (also .gz, .zst)')
    .option('--text-field <name>', 'the field of a JSON line that holds the text (default: text)')
    .option('--delimiter <text>', 'what separates documents in a text file')
    .option('--tokenizer <path>', 'a tokenizer.json or its directory; without it one is trained on the data')
    .option('--vocab-size <n>', 'ids of a tokenizer that is trained', integer(1))
    .option('--sequence-length <n>', 'tokens of a row (default: 256)', integer(2))
    .option('--batch-size <n>', 'rows of a batch (default: 8)', integer(1))
    .option('--accumulation-steps <n>', 'batches of an optimizer step (default: 1)', integer(1))
    .option('--steps <n>', 'optimizer steps of the whole run', integer(1))
    .option('--lr <rate>', 'the highest learning rate (default: 0.001)', decimal())
    .addOption(
      new Option('--schedule <type>', 'of the learning rate').choices(['cosine', 'linear', 'constant']),
    )
    .option('--warmup-steps <n>', 'steps until the highest rate (default: a twentieth of all)', integer())
    .option('--weight-decay <rate>', 'of matrices (default: 0.1)', decimal())
    .option('--clip-norm <norm>', 'the most that the norm of the gradients may be (default: 1)', decimal())
    .option('--concentration <weight>', 'of the loss that gathers the load on few experts', decimal())
    .addOption(
      new Option('--balance-over <what>', 'whose load the router losses look at').choices([
        'microBatch',
        'step',
      ]),
    )
    .option('--frozen-base <checkpoint>', 'train only the experts that this checkpoint lacks')
    .option('--evaluate-every <n>', 'steps between two evaluations (default: only at the end)', integer(1))
    .option('--checkpoint-every <n>', 'steps between two checkpoints (default: 500)', integer(1))
    .option('--keep-checkpoints <n>', 'how many are kept (default: 2)', integer(1))
    .addOption(new Option('--dtype <type>', 'of the parameters').choices(['f32', 'bf16', 'f64']))
    .addOption(new Option('--device <name>', 'where to compute').choices(['cpu', 'cuda']))
    .option(
      '--seed <n>',
      'decides initial parameters, dropout and the order of the data (default: 0)',
      integer(),
    )
    .option('--threads <n>', 'CPU threads (default: all cores); results do not depend on it', integer(1))
    .option('--json', 'no progress; print the result as a JSON object')
    .addHelpText(
      'after',
      `
Ctrl-C or SIGTERM end training after the step in progress, with a checkpoint; --resume goes on from there.

Examples:
  $ moduleformer train --preset tiny --data corpus/ --steps 500 --run-dir runs/tiny
  $ moduleformer train config.json --steps 10000 --evaluate-every 500
  $ moduleformer train --resume runs/tiny
  $ moduleformer train --from runs/tiny --data poems.txt --lr 1e-4 --steps 200 --run-dir runs/poems

A config file:
  {
    "runDir": "runs/mine", "preset": "small", "model": { "n_layer": 6, "gate_type": "gmm" },
    "data": { "files": ["corpus/**/*.jsonl.zst"], "textField": "content" },
    "sequenceLength": 512, "batchSize": 8, "steps": 5000,
    "schedule": { "type": "cosine", "lr": 0.001, "warmupSteps": 200 }
  }`,
    )
    .action(async (config: string | undefined, flags: TrainFlags) => {
      const { train } = await import('./train.js');
      await train(config, flags);
    });
}
