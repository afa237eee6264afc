export interface AdamWState {
  w: Float64Array;
  m: Float64Array;
  v: Float64Array;
  step: number;
}

export interface AdamWFactors {
  lr: number;
  betas: readonly [number, number];
  eps: number;
  weightDecay: number;
}

/** One step of AdamW on one tensor, in place, as torch.optim.AdamW defines it. */
export function adamW(state: AdamWState, gradient: ArrayLike<number>, factors: AdamWFactors): void {
  const { lr, eps, weightDecay } = factors;
  const [beta1, beta2] = factors.betas;
  const { w, m, v } = state;
  state.step += 1;
  for (let i = 0; i < w.length; i++) {
    const g = gradient[i]!;
    m[i] = beta1 * m[i]! + (1 - beta1) * g;
    v[i] = beta2 * v[i]! + (1 - beta2) * g * g;
    const mHat = m[i]! / (1 - beta1 ** state.step);
    const vHat = v[i]! / (1 - beta2 ** state.step);
    w[i] = w[i]! * (1 - lr * weightDecay) - (lr * mHat) / (Math.sqrt(vHat) + eps);
  }
}
