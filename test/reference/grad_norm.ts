/** The 2-norm over all tensors together. */
export function gradNorm(tensors: readonly ArrayLike<number>[]): number {
  let sum = 0;
  for (const tensor of tensors) for (let i = 0; i < tensor.length; i++) sum += tensor[i]! ** 2;
  return Math.sqrt(sum);
}

/** What clipping to maxNorm multiplies every gradient by. */
export function clipFactor(norm: number, maxNorm: number): number {
  return Number.isFinite(norm) ? Math.min(1, maxNorm / (norm + 1e-6)) : 1;
}
