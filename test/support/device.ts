import { devices, type Device } from '../../lib/native/binding.js';

const named = process.env['MODULEFORMER_TEST_DEVICE'] ?? 'cpu';

/** Where the op specs and the golden cases run: MODULEFORMER_TEST_DEVICE, or the CPU. */
export const testDevice: Device = devices.find((device) => device === named) ?? unknown();

function unknown(): never {
  throw new Error(`MODULEFORMER_TEST_DEVICE is '${named}', expected one of ${devices.join(', ')}`);
}
