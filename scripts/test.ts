// `npm test [-- files and ava options]`: runs ava, shows what it prints, and closes with `N passed, N failed`.
// Exits with 1 when a test or a file failed, crashed or timed out, or when no test ran.
import { spawn } from 'node:child_process';
import { StringDecoder } from 'node:string_decoder';
import { fileURLToPath } from 'node:url';

import { AvaCounter, formatCounts, type TestCounts } from './ava-counter.js';

async function runAva(args: string[]): Promise<TestCounts> {
  const cli = fileURLToPath(new URL('../node_modules/ava/entrypoints/cli.mjs', import.meta.url));
  const env = process.stdout.isTTY ? { FORCE_COLOR: '1', ...process.env } : process.env;
  const child = spawn(process.execPath, [cli, ...args], { stdio: ['inherit', 'pipe', 'inherit'], env });
  // Ctrl-C reaches ava as well; it lists what was pending and ends, and the totals still follow.
  process.on('SIGINT', () => undefined);
  const counter = new AvaCounter();
  const decoder = new StringDecoder('utf8');
  child.stdout.on('data', (chunk: Buffer) => {
    process.stdout.write(chunk);
    counter.add(decoder.write(chunk));
  });
  const exitCode = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  return counter.finish(exitCode);
}

const counts = await runAva(process.argv.slice(2));
console.log(`\n${formatCounts(counts)}`);
process.exitCode = counts.failed > 0 ? 1 : 0;
