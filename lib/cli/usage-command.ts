import type { Command } from 'commander';
import { addReadingFlags, type ReadingFlags } from './reading-flags.js';

export interface UsageFlags extends ReadingFlags {
  text?: string;
  token?: string[];
  html?: string;
}

export function addUsageCommand(program: Command): void {
  const command = program
    .command('usage')
    .description('Tell which experts fire for domains, tokens or a text.')
    .argument('<checkpoint>', 'a checkpoint, or a run, whose newest one is taken');
  addReadingFlags(command)
    .option('--text <text>', 'show the experts of each token of this text')
    .option('--token <text...>', 'tokens to tell the experts of, in the data')
    .option('--html <file>', 'write heat maps of blocks and experts for every domain')
    .addHelpText(
      'after',
      `
Examples:
  $ moduleformer usage runs/mixed --data prose=brown.txt code='src/**/*.txt' --html usage.html
  $ moduleformer usage runs/mixed --text "The jury said"
  $ moduleformer usage runs/mixed --data brown.txt --token " the" " of" --json`,
    )
    .action(async (checkpoint: string, flags: UsageFlags) => {
      const { usage } = await import('./usage.js');
      await usage(checkpoint, flags);
    });
}
