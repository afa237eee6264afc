import { native } from '../native/load.js';
import type { Tensor } from '../tensor.js';

/** One parameter with what AdamW keeps for it. Shapes equal the parameter's; "acc" is f32, f64 for f64 parameters. */
export interface AdamWEntry {
  /** Changed in place: f64, f32 or bf16. */
  parameter: Tensor;
  /** In the parameter's dtype or acc. */
  gradient: Tensor;
  /** Acc: the running mean of the gradient. */
  m: Tensor;
  /** Acc: the running mean of the squared gradient. */
  v: Tensor;
  /** f32: the parameter in full precision, for bf16 parameters; else null. */
  master: Tensor | null;
  /** [1] i32: updates done. */
  step: Tensor;
}

/** The numbers of an AdamW step that all its parameters share. */
export interface AdamWFactors {
  /** Learning rate, at least 0. */
  lr: number;
  /** Decay of the two running means, in [0, 1). */
  betas: readonly [number, number];
  /** Added to the root of the mean square, at least 0. */
  eps: number;
  /** Decoupled, at least 0. */
  weightDecay: number;
}

/**
 * One step of AdamW (decoupled weight decay, as torch.optim.AdamW) on every entry, in place. Nothing changes, `step`
 * included, when `finite` [1] i32 is given and 0.
 * @throws ShapeError, DTypeError, ValueError before anything changes.
 */
export function adamWStep(
  entries: readonly AdamWEntry[],
  { lr, betas: [beta1, beta2], eps, weightDecay }: AdamWFactors,
  finite?: Tensor | null,
): void {
  native.adamW(
    entries.map(({ parameter }) => parameter.id),
    entries.map(({ gradient }) => gradient.id),
    entries.map(({ m }) => m.id),
    entries.map(({ v }) => v.id),
    entries.map(({ master }) => master?.id ?? null),
    entries.map(({ step }) => step.id),
    finite?.id ?? null,
    lr,
    beta1,
    beta2,
    eps,
    weightDecay,
  );
  for (const { parameter, m, v, master, step } of entries) {
    for (const changed of [parameter, m, v, master, step]) if (changed) changed.version.count++;
  }
}
