import type { Device } from '../native/binding.js';
import { native } from '../native/load.js';
import { describeBackend } from '../system.js';

/**
 * Sets the number of threads, if given, and tells what computes: through `say`, or on standard error where results are
 * for other programs and only an installed CUDA package that is not used is worth a word.
 */
export function prepareBackend(
  { threads, device = 'cpu' }: { threads?: number | undefined; device?: Device | undefined },
  say?: (line: string) => void,
): void {
  if (threads !== undefined) native.setNumThreads(threads);
  const { summary, addon } = describeBackend(device);
  if (say) say(`backend: ${summary}`);
  else if (addon.unusedCudaPackage !== undefined) process.stderr.write(`moduleformer: backend: ${summary}\n`);
}
