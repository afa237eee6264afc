import type { Command } from 'commander';
import { integer } from './command.js';
import { addModelFlags, type ModelFlags } from './model-flags.js';

/** Flags of the commands that let a model read texts of one or more domains. */
export interface ReadingFlags extends ModelFlags {
  data?: string[];
  textField?: string;
  delimiter?: string;
  sequenceLength: number;
  batchSize: number;
  maxTokens: number;
  json?: boolean;
}

export function addReadingFlags(command: Command): Command {
  command
    .option(
      '--data <name=file...>',
      'texts by domain: files, directories or patterns; without a name, all are one domain',
    )
    .option('--text-field <name>', 'the field of a JSON line that holds the text (default: text)')
    .option('--delimiter <text>', 'what separates documents in a text file')
    .option('--sequence-length <n>', 'tokens that are read together', integer(2), 256)
    .option('--batch-size <n>', 'rows that are read at a time', integer(1), 8)
    .option('--max-tokens <n>', 'the most tokens of a domain, up to whole batches', integer(1), 50_000);
  return addModelFlags(command).option('--json', 'print a JSON object');
}
