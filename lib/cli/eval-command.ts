import { Option, type Command } from 'commander';
import { integer } from './command.js';

export interface EvalFlags {
  data: string[];
  textField?: string;
  delimiter?: string;
  tokenizer?: string;
  sequenceLength: number;
  batchSize: number;
  dtype?: 'f32' | 'bf16' | 'f64';
  device: 'cpu' | 'cuda';
  quantize?: 'i8';
  threads?: number;
  json?: boolean;
}

export function addEvalCommand(program: Command): void {
  program
    .command('eval')
    .description('Measure the perplexity of a model on text.')
    .argument('<checkpoint>', 'a checkpoint, or a run, whose newest one is taken')
    .requiredOption('--data <file...>', 'text or JSONL files, directories or patterns (also .gz, .zst)')
    .option('--text-field <name>', 'the field of a JSON line that holds the text (default: text)')
    .option('--delimiter <text>', 'what separates documents in a text file')
    .option('--tokenizer <path>', "a tokenizer.json or its directory (default: the checkpoint's)")
    .option('--sequence-length <n>', 'tokens that are read together', integer(2), 512)
    .option('--batch-size <n>', 'rows that are read at a time', integer(1), 4)
    .addOption(
      new Option('--dtype <type>', "of the parameters (default: the checkpoint's)").choices([
        'f32',
        'bf16',
        'f64',
      ]),
    )
    .addOption(new Option('--device <name>', 'where to compute').choices(['cpu', 'cuda']).default('cpu'))
    .addOption(new Option('--quantize <type>', 'load the weights in 8 bits').choices(['i8']))
    .option('--threads <n>', 'CPU threads (default: all cores)', integer(1))
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
