import type { Command } from 'commander';
import { decimal, integer } from './command.js';
import { addModelFlags, quantizeOption, type ModelFlags } from './model-flags.js';

export interface GenerateFlags extends ModelFlags {
  prompt?: string;
  maxNewTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  repetitionPenalty: number;
  seed: number;
  ignoreEos?: boolean;
  quantize?: 'i8';
  json?: boolean;
}

export function addGenerateCommand(program: Command): void {
  const command = program
    .command('generate')
    .description('Continue a text, token by token, on standard output.')
    .argument('<checkpoint>', 'a checkpoint, or a run, whose newest one is taken')
    .option('--prompt <text>', 'the text to continue (default: standard input when it is no terminal)')
    .option('--max-new-tokens <n>', 'the most tokens to add', integer(1), 128)
    .option('--temperature <t>', '0 always takes the most probable token', decimal(), 0.8)
    .option('--top-k <n>', 'draw among so many of the most probable tokens; 0: all', integer(), 0)
    .option('--top-p <p>', 'draw among the fewest tokens that have this probability', decimal(0, 1), 0.95)
    .option('--repetition-penalty <x>', 'above 1, makes tokens that occurred less probable', decimal(), 1)
    .option('--seed <n>', 'same seed, same text', integer(), 0)
    .option('--ignore-eos', 'go on after the end-of-text token');
  addModelFlags(command)
    .addOption(quantizeOption())
    .option('--json', 'print a JSON object at the end instead of the text as it comes')
    .addHelpText(
      'after',
      `
Examples:
  $ moduleformer generate runs/tiny --prompt "The jury said" --temperature 0.7 --seed 3
  $ echo "Once upon a time" | moduleformer generate runs/tiny --max-new-tokens 300
  $ moduleformer generate runs/tiny --prompt "The" --temperature 0 --json`,
    )
    .action(async (checkpoint: string, flags: GenerateFlags) => {
      const { generateText } = await import('./generate.js');
      await generateText(checkpoint, flags);
    });
}
