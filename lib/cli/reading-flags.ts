import { Option, type Command } from 'commander';
import { integer } from './command.js';

/** Flags of the commands that let a model read texts of one or more domains. */
export interface ReadingFlags {
  data?: string[];
  textField?: string;
  delimiter?: string;
  tokenizer?: string;
  sequenceLength: number;
  batchSize: number;
  maxTokens: number;
  dtype?: 'f32' | 'bf16' | 'f64';
  device: 'cpu' | 'cuda';
  threads?: number;
  json?: boolean;
}

export function addReadingFlags(command: Command): Command {
  return command
    .option(
      '--data <name=file...>',
      'texts by domain: files, directories or patterns; without a name, all are one domain',
    )
    .option('--text-field <name>', 'the field of a JSON line that holds the text (default: text)')
    .option('--delimiter <text>', 'what separates documents in a text file')
    .option('--tokenizer <path>', "a tokenizer.json or its directory (default: the checkpoint's)")
    .option('--sequence-length <n>', 'tokens that are read together', integer(2), 256)
    .option('--batch-size <n>', 'rows that are read at a time', integer(1), 8)
    .option('--max-tokens <n>', 'the most tokens of a domain, up to whole batches', integer(1), 50_000)
    .addOption(
      new Option('--dtype <type>', "of the parameters (default: the checkpoint's)").choices([
        'f32',
        'bf16',
        'f64',
      ]),
    )
    .addOption(new Option('--device <name>', 'where to compute').choices(['cpu', 'cuda']).default('cpu'))
    .option('--threads <n>', 'CPU threads (default: all cores)', integer(1))
    .option('--json', 'print a JSON object');
}
