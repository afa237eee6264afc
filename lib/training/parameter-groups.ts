import type { Module } from '../nn/module.js';
import type { AdamWGroupOptions } from '../optimizer/adamw.js';

/**
 * A model's parameters for AdamW, with their names: matrices decay by `weightDecay`, vectors and scalars (biases,
 * norms, temperatures) do not.
 */
export function weightDecayGroups(model: Module, weightDecay: number): AdamWGroupOptions[] {
  const named = [...model.namedParameters()];
  const isMatrix = ([, parameter]: (typeof named)[number]): boolean => parameter.shape.length >= 2;
  return [
    { params: named.filter(isMatrix), weightDecay },
    { params: named.filter((entry) => !isMatrix(entry)), weightDecay: 0 },
  ];
}
