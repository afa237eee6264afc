import { ModuleFormerConfig } from './config.js';
import type { DenseConfig } from './dense-config.js';

/** Parameters in all, and those that take part in one token. */
export interface ParameterCount {
  /** All parameters. */
  readonly total: number;
  /** Those that are read to process one token: K of E experts, one row of the embedding, and all others. */
  readonly active: number;
}

/**
 * Counts a model's parameters from its config alone. With the letters of the config's docs, a ModuleFormer has
 *
 * - V*D for the embedding and as much for the LM head (num_labels*D for a classification head), 2D for the final norm;
 * - in each of L blocks: 4D for two norms, E*2*D*A for attention experts, 2*(D*A + A) for keys and values (none when
 *   they are the identity), E*2*D*F for MLP experts, and a router for either kind of experts:
 *   D*G + G + G*E for `mlp`, D*E for `linear`, D*G + E*G + 1 for `gmm`.
 *
 * E may differ from block to block. A dense model has, besides the same embedding, head and final norm, in each block 4D for two norms,
 * 4*(D*D + D) for attention and 2*D*F + F + D for the MLP.
 */
export function countParameters(
  config: ModuleFormerConfig | DenseConfig,
  head: 'causal-lm' | 'classification' = 'causal-lm',
): ParameterCount {
  if (config instanceof ModuleFormerConfig) {
    const outputs = head === 'causal-lm' ? config.vocab_size : config.num_labels;
    return assemble(config, outputs, sparseBlocks(config));
  }
  const { total, active } = denseBlock(config);
  return assemble(config, config.vocab_size, {
    total: config.n_layer * total,
    active: config.n_layer * active,
  });
}

interface Ends {
  readonly vocab_size: number;
  readonly n_embd: number;
}

function assemble(
  { vocab_size: V, n_embd: D }: Ends,
  outputs: number,
  blocks: ParameterCount,
): ParameterCount {
  const ends = 2 * D + outputs * D;
  return { total: V * D + blocks.total + ends, active: D + blocks.active + ends };
}

function sparseBlocks(config: ModuleFormerConfig): ParameterCount {
  const { n_embd: D, att_hidden: A, ffd_hidden: F, mlpExperts, k_att, k_mlp } = config;
  const keysAndValues = config.hasIdentityKeys ? 0 : 2 * (D * A + A);
  const experts = (attention: number, mlp: number) => 2 * D * (attention * A + mlp * F);
  let total = 0;
  let active = 0;
  config.attentionExperts.forEach((attention, block) => {
    const mlp = mlpExperts[block] as number;
    const shared = 4 * D + keysAndValues + router(config, attention) + router(config, mlp);
    total += shared + experts(attention, mlp);
    active += shared + experts(k_att, k_mlp);
  });
  return { total, active };
}

function router({ gate_type, n_embd: D, gating_size: G }: ModuleFormerConfig, E: number): number {
  switch (gate_type) {
    case 'mlp':
      return D * G + G + G * E;
    case 'linear':
      return D * E;
    case 'gmm':
      return D * G + E * G + 1;
  }
}

function denseBlock({ n_embd: D, ffd_hidden: F }: DenseConfig): ParameterCount {
  const total = 4 * D + 4 * (D * D + D) + 2 * D * F + F + D;
  return { total, active: total };
}
