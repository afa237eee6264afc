import type { Command } from 'commander';

export interface InspectFlags {
  json?: boolean;
}

export function addInspectCommand(program: Command): void {
  program
    .command('inspect')
    .description('Tell what a checkpoint holds or, without one, what this machine offers.')
    .argument('[checkpoint]', 'a checkpoint, or a run, whose newest one is taken')
    .option('--json', 'print a JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ moduleformer inspect
  $ moduleformer inspect runs/tiny
  $ moduleformer inspect MoLM-350M-4B/ --json`,
    )
    .action(async (checkpoint: string | undefined, flags: InspectFlags) => {
      if (checkpoint === undefined) {
        const { inspectMachine } = await import('./inspect-machine.js');
        inspectMachine(flags);
      } else {
        const { inspectCheckpoint } = await import('./inspect-checkpoint.js');
        await inspectCheckpoint(checkpoint, flags);
      }
    });
}
