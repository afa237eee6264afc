import { layerNorm, rmsNorm } from '../../lib/autograd/norm.js';
import type { Tensor } from '../../lib/tensor.js';
import * as reference from '../reference/norm.js';
import type { NdArray } from '../support/compare.js';
import type { CaseSpec, InputSpec, OpSpec } from '../support/spec.js';

type Kind = 'layerNorm' | 'layerNorm without bias' | 'rmsNorm';

function norm(kind: Kind, shape: readonly number[], eps = 1e-5): CaseSpec {
  const D = shape.at(-1) as number;
  const inputs: Record<string, InputSpec> = { x: { shape, scale: 3 }, weight: { shape: [D] } };
  if (kind === 'layerNorm') inputs['bias'] = { shape: [D] };
  return {
    name: `${kind} [${shape.join(', ')}]`,
    inputs,
    slack: 8,
    run: ({ x, weight, bias }) =>
      kind === 'rmsNorm'
        ? rmsNorm(x as Tensor, weight as Tensor, eps)
        : layerNorm(x as Tensor, weight as Tensor, bias ?? null, eps),
    reference: ({ x, weight, bias }) => ({
      data: reference.norm(
        { x: (x as NdArray).data, weight: (weight as NdArray).data, bias: bias?.data ?? null },
        kind !== 'rmsNorm',
        eps,
      ),
      shape,
    }),
  };
}

const kinds: readonly Kind[] = ['layerNorm', 'layerNorm without bias', 'rmsNorm'];

export const spec: OpSpec = {
  op: 'norm',
  cases: kinds.flatMap((kind) => [
    norm(kind, [4, 33]),
    norm(kind, [2, 3, 64], 1e-3),
    norm(kind, [1, 3]),
    norm(kind, [0, 8]),
    norm(kind, [21]),
    norm(kind, [70, 515]),
  ]),
  cost: ({ x }) => {
    const numel = (x as InputSpec).shape.reduce((a, b) => a * b, 1);
    return { flops: 8 * numel, bytes: 8 * numel };
  },
};
