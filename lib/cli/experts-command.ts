import { InvalidArgumentError, Option, type Command } from 'commander';
import type { PruneAmount } from '../experts/prune.js';
import { decimal, integer } from './command.js';
import { dtypeOption } from './model-flags.js';
import { addReadingFlags, type ReadingFlags } from './reading-flags.js';

export interface PruneFlags extends ReadingFlags {
  out: string;
  criterion: 'frequency' | 'gateMass' | 'outputMass' | 'random';
  attention?: PruneAmount;
  mlp?: PruneAmount;
  scope: 'block' | 'model';
  seed: number;
}

export interface ExtendFlags extends ReadingFlags {
  out: string;
  attention: number;
  mlp: number;
  gating: number;
  init: 'random' | 'copy';
  outputScale: number;
  noise: number;
  seed: number;
}

export interface UpcycleFlags extends ReadingFlags {
  out: string;
  attExperts: number;
  kAtt: number;
  mlpExperts: number;
  kMlp: number;
  noise: number;
  seed: number;
}

export interface AdapterFlags {
  base: string;
  out: string;
  dtype?: 'f32' | 'bf16' | 'f64';
}

/** 50% goes; or those with a share below <2% go; or 4 stay. */
function amount(text: string): PruneAmount {
  const match = /^(<)?(\d+(?:\.\d+)?)(%)?$/.exec(text);
  const value = Number(match?.[2]);
  if (match && match[1] && value <= (match[3] ? 100 : 1))
    return { threshold: match[3] ? value / 100 : value };
  if (match && !match[1] && match[3] && value <= 100) return { fraction: value / 100 };
  if (match && !match[1] && !match[3] && Number.isSafeInteger(value)) return { count: value };
  throw new InvalidArgumentError(
    "expected '50%' (a part that goes), '<2%' (a share below which they go) or '4' (stay)",
  );
}

const CHECKPOINT = ['<checkpoint>', 'a checkpoint, or a run, whose newest one is taken'] as const;

export function addExpertsCommands(program: Command): void {
  addPrune(program);
  addExtend(program);
  addUpcycle(program);
  addAdapter(program);
}

function addPrune(program: Command): void {
  addReadingFlags(
    program
      .command('prune')
      .description('Remove the experts that a domain needs least.')
      .argument(...CHECKPOINT),
  )
    .requiredOption('--out <dir>', 'where the smaller checkpoint goes')
    .addOption(
      new Option('--criterion <name>', 'by what experts are ranked')
        .choices(['frequency', 'gateMass', 'outputMass', 'random'])
        .default('frequency'),
    )
    .option('--attention <amount>', 'of attention experts: 50% go, <2% (of the rows) go, or 4 stay', amount)
    .option('--mlp <amount>', 'of MLP experts, likewise', amount)
    .addOption(
      new Option('--scope <scope>', 'whether a part is that of each block or of the model')
        .choices(['block', 'model'])
        .default('block'),
    )
    .option('--seed <n>', 'of a random choice', integer(), 0)
    .addHelpText(
      'after',
      `
At least K experts of each router stay. Perplexity is measured before and after on --data.

Examples:
  $ moduleformer prune runs/code --data code.txt --attention 50% --mlp 50% --out pruned
  $ moduleformer prune runs/code --data code.txt --criterion outputMass --mlp '<1%' --out pruned
  $ moduleformer prune runs/code --criterion random --mlp 8 --out control`,
    )
    .action(async (checkpoint: string, flags: PruneFlags) => {
      const { prune } = await import('./experts.js');
      await prune(checkpoint, flags);
    });
}

function addExtend(program: Command): void {
  addReadingFlags(
    program
      .command('extend')
      .description('Add new experts to every block.')
      .argument(...CHECKPOINT),
  )
    .requiredOption('--out <dir>', 'where the larger checkpoint goes')
    .option('--attention <n>', 'new attention experts in each block', integer(), 0)
    .option('--mlp <n>', 'new MLP experts in each block', integer(), 0)
    .option('--gating <n>', 'new hidden units of each router, which new experts alone read', integer(), 0)
    .addOption(
      new Option('--init <how>', 'at random, or copies of the experts that --data uses most')
        .choices(['random', 'copy'])
        .default('random'),
    )
    .option('--output-scale <x>', 'of the random output projections', decimal(), 0.1)
    .option('--noise <x>', "on a copy's row of the router, as a part of it", decimal(), 0.01)
    .option('--seed <n>', 'of what is random', integer(), 0)
    .addHelpText(
      'after',
      `
Train the new experts alone with: moduleformer train --from <out> --frozen-base <checkpoint> ...

Examples:
  $ moduleformer extend runs/english --mlp 4 --out larger --data english.txt
  $ moduleformer train --from larger --frozen-base runs/english --data german.txt --steps 500 --run-dir runs/german`,
    )
    .action(async (checkpoint: string, flags: ExtendFlags) => {
      const { extend } = await import('./experts.js');
      await extend(checkpoint, flags);
    });
}

function addUpcycle(program: Command): void {
  addReadingFlags(
    program
      .command('upcycle')
      .description('Make a mixture of experts of a dense ModuleFormer (one expert of each kind a block).')
      .argument(...CHECKPOINT),
  )
    .requiredOption('--out <dir>', 'where the new checkpoint goes')
    .requiredOption('--att-experts <n>', 'attention experts of each block', integer(1))
    .requiredOption('--mlp-experts <n>', 'MLP experts of each block', integer(1))
    .option('--k-att <n>', 'attention experts of a token', integer(1), 2)
    .option('--k-mlp <n>', 'MLP experts of a token', integer(1), 2)
    .option('--noise <x>', 'of the first router logits', decimal(), 0.01)
    .option('--seed <n>', 'of what is random', integer(), 0)
    .addHelpText(
      'after',
      `
Examples:
  $ moduleformer upcycle runs/dense --att-experts 8 --mlp-experts 16 --out sparse --data text.txt`,
    )
    .action(async (checkpoint: string, flags: UpcycleFlags) => {
      const { upcycleCheckpoint } = await import('./experts.js');
      await upcycleCheckpoint(checkpoint, flags);
    });
}

function addAdapter(program: Command): void {
  const adapter = program
    .command('adapter')
    .description('Keep new experts in a small file of their own, and put them into their base.')
    .addHelpText(
      'after',
      `
Examples:
  $ moduleformer adapter save runs/german --base runs/english --out german.safetensors
  $ moduleformer adapter add runs/english german.safetensors french.safetensors --out european`,
    );
  adapter
    .command('save')
    .description('Write the experts that a model has beyond those of its base to a file.')
    .argument(...CHECKPOINT)
    .requiredOption('--base <checkpoint>', 'the model that was extended')
    .requiredOption('--out <file>', 'a .safetensors file')
    .addOption(dtypeOption())
    .action(async (checkpoint: string, flags: AdapterFlags) => {
      const { saveAdapter } = await import('./experts.js');
      await saveAdapter(checkpoint, flags);
    });
  adapter
    .command('add')
    .description('Make a checkpoint of a base and files of new experts.')
    .argument('<base>', 'the model that they were trained on')
    .argument('<file...>', 'files that `adapter save` wrote')
    .requiredOption('--out <dir>', 'where the checkpoint goes')
    .addOption(dtypeOption())
    .action(async (base: string, files: string[], flags: Omit<AdapterFlags, 'base'>) => {
      const { addAdapters } = await import('./experts.js');
      await addAdapters(base, files, flags);
    });
}
