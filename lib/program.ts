import { devices, type Device } from './native/binding.js';
import { native } from './native/load.js';

/**
 * Operations recorded once, to be run again and again by one call each. They read and write the memory that they had
 * while they were recorded, which is theirs until `dispose()`: what changes from run to run is read from tensors.
 * @internal
 */
export class Program {
  readonly #device: number;
  readonly #id: number;

  /**
   * Records what `fn` enqueues on the device, without running it. Tensors that `fn` makes have no value before the
   * first run; those that are to be read afterwards outlive it.
   * @throws ValueError when the device cannot replay (see `canReplay`), and inside another recording.
   */
  constructor(device: Device, fn: () => void) {
    this.#device = devices.indexOf(device);
    native.beginRecording(this.#device);
    try {
      fn();
    } catch (error) {
      native.cancelRecording(this.#device);
      throw error;
    }
    this.#id = native.endRecording(this.#device, this);
  }

  /** Whether a device has programs. */
  static canReplay(device: Device): boolean {
    return native.canReplay(devices.indexOf(device));
  }

  /** Enqueues one run. @throws HandleError when disposed. */
  run(): void {
    native.replay(this.#device, this.#id);
  }

  /** Frees the memory as soon as enqueued runs no longer need it. */
  dispose(): void {
    native.disposeProgram(this.#id);
  }
}
