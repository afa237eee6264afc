import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { apply } from './engine.js';

/** Positions, and how much of a head is rotated how fast. */
export interface RotaryOptions {
  /** How many channels of each head turn, even; default all C. */
  rotaryDim?: number;
  /** Default 10000. */
  base?: number;
}

/**
 * Rotary position embedding in the GPT-NeoX layout: of x [B, T, H, C], channel i of the first half of the `rotaryDim`
 * leading channels is rotated with channel i of the second by positions [B, T] i32 times base^(-2i / rotaryDim).
 * @throws ShapeError when positions is not [B, T]; ValueError when rotaryDim is odd or above C.
 */
export function rotary(
  x: Tensor,
  positions: Tensor,
  { rotaryDim = x.shape[3] ?? 0, base = 10000 }: RotaryOptions = {},
): Tensor {
  return apply(native.rotary(x.id, positions.id, rotaryDim, base, false), {
    name: 'rotary',
    inputs: [x],
    saved: () => [positions],
    backward: ([dout], [positions]) => [
      wrap(native.rotary((dout as Tensor).id, (positions as Tensor).id, rotaryDim, base, true)),
    ],
  });
}
