/** x [B, T, H, C], positions [B * T]; see lib/autograd/rotary.ts. */
export function rotary(
  x: ArrayLike<number>,
  positions: ArrayLike<number>,
  { H, C, rotaryDim, base }: { H: number; C: number; rotaryDim: number; base: number },
): Float64Array {
  const out = Float64Array.from(x);
  const half = rotaryDim / 2;
  for (let n = 0; n < positions.length; n++)
    for (let h = 0; h < H; h++)
      for (let i = 0; i < half; i++) {
        const at = (n * H + h) * C + i;
        const angle = positions[n]! * base ** ((-2 * i) / rotaryDim);
        out[at] = x[at]! * Math.cos(angle) - x[at + half]! * Math.sin(angle);
        out[at + half] = x[at + half]! * Math.cos(angle) + x[at]! * Math.sin(angle);
      }
  return out;
}
