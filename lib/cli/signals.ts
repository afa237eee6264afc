import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/**
 * Runs `work` with an AbortSignal that SIGINT and SIGTERM abort; a second one ends the program at once. When one came,
 * the program's exit code is the customary 128 + its number.
 */
export async function interruptible<T>(
  notice: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    const code = 128 + constants.signals[name];
    if (controller.signal.aborted) process.exit(code);
    process.exitCode = code;
    process.stderr.write(`\n${name}: ${notice}\n`);
    controller.abort();
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  try {
    return await work(controller.signal);
  } finally {
    for (const name of SIGNALS) process.off(name, onSignal);
  }
}
