import { existsSync, readFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, freemem, platform, totalmem } from 'node:os';
import { native } from '../native/load.js';
import { describeBackend } from '../system.js';
import { versions } from '../training/versions.js';
import { bytes, printJson, printTable } from './command.js';
import type { InspectFlags } from './inspect-command.js';

/** Prints what this machine offers: processor, instruction sets, threads, memory, devices. */
export function inspectMachine({ json }: InspectFlags): void {
  const machine = describeMachine();
  if (json) {
    printJson(machine);
    return;
  }
  const { processor, memory, instructionSets: sets, cuda, addon } = machine;
  printTable([
    ['moduleformer', machine.versions['moduleformer'] ?? ''],
    ['node', `${machine.versions['node']} on ${platform()}-${arch()}`],
    ['processor', `${processor.model}, ${processor.cores} cores`],
    ['threads', String(processor.threads)],
    [
      'instruction sets',
      sets.supported.map((name) => (name === sets.chosen ? `${name} (used)` : name)).join(', '),
    ],
    ['  in this build', sets.built.join(', ')],
    ['  bf16 products', sets.bf16Dot ? 'in hardware' : 'through f32'],
    ['memory', `${bytes(memory.total)}, ${bytes(memory.free)} free`],
    ['addon', addon.what],
    ...addon.passedOver.map(({ what, reason }) => ['  passed over', `${what}: ${reason}`] as const),
    ['backend', machine.backend],
    ['cpu', 'available'],
    ['cuda', cuda.available ? cuda.names.join(', ') : `not available: ${cuda.reason}`],
    ...(cuda.architectures === '' ? [] : [['  in this build', cuda.architectures] as const]),
  ]);
}

function describeMachine() {
  const { addon, cuda, summary } = describeBackend();
  const unused = addon.unusedCudaPackage;
  const reason = [cuda.reason, describeDriver(), ...(unused === undefined ? [] : [unused])].join('; ');
  return {
    versions: versions(),
    processor: {
      model: cpus()[0]?.model.trim() ?? 'unknown',
      cores: availableParallelism(),
      threads: native.numThreads(),
    },
    instructionSets: native.instructionSets(),
    addon,
    backend: summary,
    memory: { total: totalmem(), free: freemem() },
    cpu: { available: true },
    cuda: { available: cuda.names.length > 0, ...cuda, reason: cuda.reason === '' ? '' : reason },
  };
}

function describeDriver(): string {
  const file = '/proc/driver/nvidia/version';
  if (!existsSync(file)) return `no NVIDIA driver is loaded (there is no ${file})`;
  const version = /Kernel Module\s+(?:for \S+\s+)?(\S+)/.exec(readFileSync(file, 'utf8'))?.[1] ?? 'unknown';
  return `NVIDIA driver ${version} is loaded`;
}
