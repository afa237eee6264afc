import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../../lib/model/config.js';
import { DenseConfig, type DenseConfigInit } from '../../lib/model/dense-config.js';
import { DenseForCausalLM } from '../../lib/model/dense.js';
import { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { shake } from './gradient-check.js';
import { generator } from './random.js';

export const tiny = {
  vocab_size: 13,
  n_embd: 8,
  n_layer: 2,
  n_head: 2,
  att_hidden: 12,
  ffd_hidden: 10,
  gating_size: 6,
  n_att_experts: 4,
  k_att: 2,
  n_mlp_experts: 5,
  k_mlp: 2,
  bos_token_id: 0,
  eos_token_id: 0,
  initializer_range: 0.3,
  aux_loss_weight: 0.1,
} as const satisfies ModuleFormerConfigInit;

export const tinyDense = {
  vocab_size: 13,
  n_embd: 8,
  n_layer: 2,
  n_head: 2,
  ffd_hidden: 12,
  rotary_pct: 0.5,
  initializer_range: 0.3,
} as const satisfies DenseConfigInit;

export function rows(B: number, T: number, seed = 3, V = tiny.vocab_size): number[][] {
  const next = generator(seed);
  return Array.from({ length: B }, () => Array.from({ length: T }, () => Math.floor(next() * V)));
}

export async function makeModel(
  fields: ModuleFormerConfigInit = {},
  dtype: 'f64' | 'f32' = 'f64',
): Promise<ModuleFormerForCausalLM> {
  const model = new ModuleFormerForCausalLM(new ModuleFormerConfig({ ...tiny, ...fields }), {
    dtype,
    seed: 5,
  });
  await shake(model);
  return model;
}

export async function makeDense(fields: DenseConfigInit = {}): Promise<DenseForCausalLM> {
  const model = new DenseForCausalLM(new DenseConfig({ ...tinyDense, ...fields }), { dtype: 'f64', seed: 5 });
  await shake(model);
  return model;
}

export const inputIds = rows(2, 7);
export const labelled = {
  inputIds,
  labels: inputIds.map((row) => row.map((id, t) => (t === 3 ? -100 : id))),
};
export const leftPadded = { ...labelled, attentionMask: [Array<number>(7).fill(1), [0, 0, 0, 1, 1, 1, 1]] };

export const denseKinds: Record<string, DenseConfigInit> = {
  'softmax and rotary embedding, parallel residual': {},
  'softmax and rotary embedding, sequential residual': { use_parallel_residual: false },
  'stick-breaking, parallel residual': { attention_type: 'stickbreaking', rotary_pct: 0 },
  'stick-breaking, sequential residual': {
    attention_type: 'stickbreaking',
    rotary_pct: 0,
    use_parallel_residual: false,
  },
};
