import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';
import type { NdArray } from '../support/compare.js';
import { spacedRows } from '../support/random.js';
import { noGrad } from '../../lib/autograd/engine.js';
import { routerTopK } from '../../lib/autograd/router.js';
import { routerLoss } from '../../lib/autograd/router_loss.js';
import type { Tensor } from '../../lib/tensor.js';
import { route } from '../reference/router.js';
import * as reference from '../reference/router_loss.js';
import { softmaxRows } from '../reference/softmax.js';

function losses(name: string, N: number, E: number, K: number, mask?: (n: number) => number): CaseSpec {
  const inputs: Record<string, InputSpec> = {
    logits: { shape: [N, E], values: spacedRows(N + E, N, E).map((x) => 6 * x - 3), dtype: 'acc' },
  };
  if (mask) {
    const values = Int32Array.from({ length: N }, (_, n) => mask(n));
    inputs['mask'] = { shape: [N], values, dtype: 'i32', grad: false };
  }
  return {
    name,
    dtypes: ['f64', 'f32'],
    inputs,
    differentiable: [true, false],
    run: (tensors) => {
      const logits = tensors['logits'] as Tensor;
      const { plan, gates, probs } = noGrad(() => routerTopK(logits, { k: K }));
      const { losses, stats } = routerLoss(logits, probs, gates, plan, tensors['mask'] ?? null);
      return [losses, stats];
    },
    reference: (arrays) => {
      const logits = (arrays['logits'] as NdArray).data;
      const { experts, gates } = route(softmaxRows(logits, E), { N, E, K });
      const mask = arrays['mask']?.data;
      const { losses, stats } = reference.routerLoss(logits, experts, gates, { N, E, K, mask });
      return [
        { data: losses, shape: [4] },
        { data: stats, shape: [3, E] },
      ];
    },
  };
}

export const spec: OpSpec = {
  op: 'routerLoss',
  cases: [
    losses('two of eight', 40, 8, 2),
    losses('many tokens', 600, 33, 2),
    losses('all experts', 12, 5, 5),
    losses('one expert', 6, 1, 1),
    losses('one token', 1, 6, 2),
    losses('no tokens', 0, 4, 2),
    losses('experts that nobody chose', 3, 9, 1),
    losses('masked tokens', 40, 8, 2, (n) => (n % 3 === 0 ? 0 : 1)),
    losses('all tokens masked', 5, 4, 2, () => 0),
  ],
  cost: ({ logits }) => {
    const numel = (logits as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: 4 * numel, bytes: 8 * numel };
  },
};
