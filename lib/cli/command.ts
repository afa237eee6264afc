import { InvalidArgumentError } from 'commander';
import { HandleError, ModuleFormerError } from '../errors.js';

/** For values of flags. @throws InvalidArgumentError, which ends the program with code 2 and the flag's name. */
export function integer(least = 0): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && Number.isSafeInteger(value) && value >= least) return value;
    throw new InvalidArgumentError(`expected an integer of at least ${least}`);
  };
}

/** As `integer`, for numbers in [least, most]. */
export function decimal(least = 0, most = Infinity): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && Number.isFinite(value) && value >= least && value <= most) return value;
    const range = most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`;
    throw new InvalidArgumentError(`expected a number ${range}`);
  };
}

/** Prints a JSON value for scripts, on a line of its own. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Prints rows in columns: names to the left, values to the right of them. */
export function printTable(rows: readonly (readonly [string, string])[]): void {
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) process.stdout.write(`${name.padEnd(width)}  ${value}\n`);
}

/** 12,345,678 */
export function grouped(value: number): string {
  return value.toLocaleString('en');
}

/** 1.2 GB, with powers of ten. */
export function bytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let size = value;
  for (; size >= 1000 && unit < units.length - 1; unit++) size /= 1000;
  return `${unit === 0 ? size : size.toPrecision(3)} ${units[unit]}`;
}

/** What is said about an error on one line. */
export function describeError(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const line = message.replace(/\s*\n\s*/g, '; ').trim();
  return isExpected(error) ? line : `unexpected ${error instanceof Error ? error.name : 'error'}: ${line}`;
}

function isExpected(error: unknown): boolean {
  if (error instanceof ModuleFormerError || error instanceof HandleError) return true;
  return error instanceof Error && 'syscall' in error;
}
