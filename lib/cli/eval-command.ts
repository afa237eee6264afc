import type { Command } from 'commander';
import { integer } from './command.js';
import { addModelFlags, quantizeOption, type ModelFlags } from './model-flags.js';

export interface EvalFlags extends ModelFlags {
  data: string[];
  textField?: string;
  delimiter?: string;
  sequenceLength: number;
  batchSize: number;
  quantize?: 'i8';
  json?: boolean;
}

export function addEvalCommand(program: Command): void {
  const command = program
    .command('eval')
    .description('Measure the perplexity of a model on text.')
    .argument('<checkpoint>', 'a checkpoint, or a run, whose newest one is taken')
    .requiredOption('--data <file...>', 'text or JSONL files, directories or patterns (also .gz, .zst)')
    .option('--text-field <name>', 'the field of a JSON line that holds the text (default: text)')
    .option('--delimiter <text>', 'what separates documents in a text file')
    .option('--sequence-length <n>', 'tokens that are read together', integer(2), 512)
    .option('--batch-size <n>', 'rows that are read at a time', integer(1), 4);
  addModelFlags(command)
    .addOption(quantizeOption())
    .option('--json', 'print a JSON object')
    .addHelpText(
      'after',
      `
Perplexity is exp of the mean cross-entropy over all tokens but each document's first.

Examples:
  $ moduleformer eval runs/tiny --data held-out.txt
  $ moduleformer eval MoLM-350M-4B/ --data wiki.jsonl.gz --sequence-length 1024 --json`,
    )
    .action(async (checkpoint: string, flags: EvalFlags) => {
      const { evaluateCheckpoint } = await import('./eval.js');
      await evaluateCheckpoint(checkpoint, flags);
    });
}
