#!/usr/bin/env node
import { Command, CommanderError } from 'commander';
import { addBuildCommand } from './build-command.js';
import { addEvalCommand } from './eval-command.js';
import { addExpertsCommands } from './experts-command.js';
import { addGenerateCommand } from './generate-command.js';
import { addInspectCommand } from './inspect-command.js';
import { addTokenizerCommand } from './tokenizer-command.js';
import { addTrainCommand } from './train-command.js';
import { addUsageCommand } from './usage-command.js';
import { describeError } from './command.js';
import { packageVersion } from './version.js';

const USAGE_ERROR = 2;

function buildProgram(): Command {
  const program = new Command('moduleformer')
    .description('Train, evaluate and run ModuleFormer language models (sparse mixtures of experts).')
    .version(packageVersion())
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(usageError(text)) })
    .addHelpText(
      'after',
      `
Examples:
  $ moduleformer tokenizer train corpus/ --vocab-size 8192 --out tokenizer/
  $ moduleformer train --preset small --data corpus/ --steps 2000 --run-dir runs/first
  $ moduleformer train --resume runs/first
  $ moduleformer eval runs/first --data held-out.txt
  $ moduleformer generate runs/first --prompt "The jury said"
  $ moduleformer inspect runs/first
  $ moduleformer inspect
  $ moduleformer usage runs/first --data prose=a.txt code=b.txt --html usage.html
  $ moduleformer prune runs/first --data held-out.txt --mlp 50% --out pruned

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 and 143 interrupted (train: after saving a checkpoint).
Set MODULEFORMER_DEBUG=1 to see where an error comes from.`,
    );
  addTrainCommand(program);
  addEvalCommand(program);
  addGenerateCommand(program);
  addInspectCommand(program);
  addTokenizerCommand(program);
  addUsageCommand(program);
  addExpertsCommands(program);
  addBuildCommand(program);
  return program;
}

/** What commander says, on one line. */
function usageError(text: string): string {
  const line = text
    .replace(/^error: /, '')
    .trim()
    .replace(/\s*\n\s*/g, ' ');
  return `moduleformer: ${line} (--help shows what is expected)\n`;
}

/** Runs a command line; returns the exit code. */
async function main(argv: readonly string[]): Promise<number> {
  try {
    await buildProgram().parseAsync([...argv], { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE_ERROR;
    process.stderr.write(`moduleformer: ${describeError(error)}\n`);
    if (process.env['MODULEFORMER_DEBUG']) console.error(error);
    return 1;
  }
}

// A reader that has seen enough (`| head`) ends the program without a complaint.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

process.exitCode = await main(process.argv.slice(2));
