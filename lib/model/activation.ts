import type { ACTIVATIONS } from './config-fields.js';

const kinds = { gelu_new: 'geluNew', gelu: 'gelu', silu: 'silu', relu: 'relu' } as const;

/** The op's name of a config's `activation_function`. */
export function activationKind(name: (typeof ACTIVATIONS)[number]): (typeof kinds)[keyof typeof kinds] {
  return kinds[name];
}
