import { existsSync, readFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, freemem, platform, totalmem } from 'node:os';
import { addonSource, native } from '../native/load.js';
import { devices, dtypes } from '../native/binding.js';
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
  const { processor, memory, instructionSets: sets, cuda } = machine;
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
    ['addon', machine.addon.what],
    ['cpu', 'available'],
    ['cuda', cuda.available ? 'available' : `not available: ${cuda.reason}`],
  ]);
}

function describeMachine() {
  return {
    versions: versions(),
    processor: {
      model: cpus()[0]?.model.trim() ?? 'unknown',
      cores: availableParallelism(),
      threads: native.numThreads(),
    },
    instructionSets: native.instructionSets(),
    addon: addonSource,
    memory: { total: totalmem(), free: freemem() },
    cpu: { available: true },
    cuda: describeCuda(),
  };
}

function describeCuda(): { available: boolean; reason?: string } {
  try {
    native.dispose(native.empty(dtypes.indexOf('f32'), [1], devices.indexOf('cuda')));
    return { available: true };
  } catch (error) {
    const passedOver = addonSource.passedOver.find(({ what }) => what.endsWith('-cuda'));
    const addon = passedOver && `; ${passedOver.what}: ${passedOver.reason}`;
    return { available: false, reason: `${(error as Error).message}; ${describeDriver()}${addon ?? ''}` };
  }
}

function describeDriver(): string {
  const file = '/proc/driver/nvidia/version';
  if (!existsSync(file)) return `no NVIDIA driver is loaded (there is no ${file})`;
  const version = /Kernel Module\s+(?:for \S+\s+)?(\S+)/.exec(readFileSync(file, 'utf8'))?.[1] ?? 'unknown';
  return `NVIDIA driver ${version} is loaded`;
}
