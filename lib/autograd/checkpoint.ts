import type { Tensor } from '../tensor.js';
import { backwardFrom, enableGrad, isGradEnabled, noGrad, record } from './engine.js';

/**
 * Activation checkpointing: runs `run` without recording and, in backward, runs it again on the saved inputs to get
 * its gradients. `run` must give the same numbers both times: random numbers by fixed keys, no other state.
 *
 * @param inputs what `run` is called with.
 * @param parameters leaves that `run` uses besides; their gradients are added when it is run again.
 * @param differentiable the tensors in the result that gradients come back through.
 */
export function checkpoint<T>(
  inputs: readonly Tensor[],
  parameters: Iterable<Tensor>,
  run: (inputs: readonly Tensor[]) => T,
  differentiable: (result: T) => Tensor[],
): T {
  if (!isGradEnabled()) return run(inputs);
  const result = noGrad(() => run(inputs));
  record(differentiable(result), {
    name: 'checkpoint',
    inputs: [...inputs, ...parameters],
    saved: inputs,
    backward: (gradients, saved, needs) => {
      const leaves = saved.map((input, i) => {
        const leaf = input.detach();
        if (needs[i]) leaf.requiresGrad = true;
        return leaf;
      });
      const outputs = enableGrad(() => differentiable(run(leaves)));
      const used = outputs.filter((output, i) => output.node && gradients[i]);
      const incoming = outputs.flatMap((output, i) => {
        const gradient = gradients[i];
        return output.node && gradient ? [gradient.detach()] : [];
      });
      backwardFrom(used, incoming);
      return leaves.map((leaf) => leaf.grad);
    },
  });
  return result;
}
