import { copyInto, linear, narrow, noGrad } from '../autograd/index.js';
import { collapseCounts, ModuleFormerConfig, type ModuleFormerConfigInit } from '../model/config.js';
import { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { scope } from '../scope.js';
import { tensor, type Tensor } from '../tensor.js';
import { EXPERT_KINDS, type ExpertKind } from './usage.js';

/** For each expert of a new router the old expert that it is; null for one that starts at random. */
export type ExpertSources = readonly (number | null)[];
export type BlockSources = Readonly<Record<ExpertKind, ExpertSources>>;

/** The names of the parameters whose dimension 0 is the expert. */
export interface ExpertParameterNames {
  /** [E, D, A] or [E, D, F] */
  input: string;
  /** [E, A, D] or [E, F, D] */
  output: string;
  /** [E, G] or [E, D]: what an expert's logit is made with. */
  router: string;
}

const ROUTER_ROWS = { mlp: 'w_gate.3.weight', linear: 'w_gate.0.weight', gmm: 'expert_centroids' } as const;

export function expertParameterNames(
  { gate_type }: ModuleFormerConfig,
  kind: ExpertKind,
  block: number,
): ExpertParameterNames {
  const prefix = `${routerPrefix(kind, block)}.`;
  return {
    input: `${prefix}experts.weight`,
    output: `${prefix}output_experts.weight`,
    router: `${prefix}gate.${ROUTER_ROWS[gate_type]}`,
  };
}

/** What the names of the experts of a block and of their router begin with. */
export function routerPrefix(kind: ExpertKind, block: number): string {
  return `transformer.h.${block}.${kind === 'attention' ? 'attn.q_proj' : 'mlpf'}`;
}

/** The parameters of a router with the gate `mlp` that have one row for each hidden unit: [G, D] and [G]. */
export function gatingParameterNames(kind: ExpertKind, block: number): readonly [string, string] {
  const prefix = `${routerPrefix(kind, block)}.gate.w_gate.0`;
  return [`${prefix}.weight`, `${prefix}.bias`];
}

/** E of every block. */
export function expertCounts(config: ModuleFormerConfig, kind: ExpertKind): readonly number[] {
  return kind === 'attention' ? config.attentionExperts : config.mlpExperts;
}

/** Names of all parameters that have one row for each expert, with the router that they belong to. */
export function* expertParameters(
  config: ModuleFormerConfig,
): Iterable<{ name: string; role: keyof ExpertParameterNames; kind: ExpertKind; block: number }> {
  for (let block = 0; block < config.n_layer; block++) {
    for (const kind of EXPERT_KINDS) {
      const names = expertParameterNames(config, kind, block);
      for (const role of ['input', 'output', 'router'] as const)
        yield { name: names[role], role, kind, block };
    }
  }
}

/** All parameters of a model by name. */
export function parametersOf(model: ModuleFormerForCausalLM): Map<string, Tensor> {
  return new Map(model.namedParameters());
}

/**
 * A model with other experts: every expert, with its row of the router, is a copy of the one it comes from, and all
 * else is a copy of the old model's. The old one stays as it is. Routers may have more hidden units (`gating_size` in
 * `changes`): the new ones are at random, and experts that were copied do not read them.
 * @param changes fields of the config besides the numbers of experts.
 * @param seed of the experts that start at random.
 */
export function withExperts(
  model: ModuleFormerForCausalLM,
  blocks: readonly BlockSources[],
  { changes = {}, seed = 0 }: { changes?: ModuleFormerConfigInit; seed?: number } = {},
): ModuleFormerForCausalLM {
  const counts = (kind: ExpertKind) => collapseCounts(blocks.map((block) => block[kind].length));
  const config = new ModuleFormerConfig({
    ...model.config.toJSON(),
    n_att_experts: counts('attention'),
    n_mlp_experts: counts('mlp'),
    ...changes,
  });
  const isWider = config.gating_size > model.config.gating_size;
  const isRandom =
    isWider || blocks.some(({ attention, mlp }) => attention.includes(null) || mlp.includes(null));
  const { dtype, device } = model;
  const made = new ModuleFormerForCausalLM(config, { dtype, device, seed, uninitialised: !isRandom });
  Object.assign(made.lossWeights, model.lossWeights);
  made.gradientCheckpointing = model.gradientCheckpointing;

  const old = parametersOf(model);
  const byExpert = new Map([...expertParameters(config)].map((entry) => [entry.name, entry]));
  for (const [name, parameter] of made.namedParameters()) {
    const source = old.get(name) as Tensor;
    const entry = byExpert.get(name);
    if (entry) copyRows(source, parameter, (blocks[entry.block] as BlockSources)[entry.kind]);
    else copyFirst(source, parameter);
  }
  return made;
}

function copyRows(source: Tensor, target: Tensor, from: ExpertSources): void {
  noGrad(() => {
    scope(() => {
      const [, width] = target.shape as [number, number];
      const rows = source.shape[1] === width ? source : placeColumns(source, width);
      from.forEach((expert, row) => {
        if (expert !== null) copyInto(narrow(target, row, 1), narrow(rows, expert, 1));
      });
    });
  });
}

/** The rows of a parameter become the first of another. */
function copyFirst(source: Tensor, target: Tensor): void {
  noGrad(() => {
    scope(() => {
      copyInto(narrow(target, 0, source.shape[0] as number), source);
    });
  });
}

/**
 * [n, G] -> [n, width]: the columns keep their place, all others are 0.
 * @param shared columns after this one move by `shift`.
 */
export function placeColumns(x: Tensor, width: number, { shared = Infinity, shift = 0 } = {}): Tensor {
  const columns = x.shape[1] as number;
  const place = new Float32Array(width * columns);
  for (let j = 0; j < columns; j++) place[(j < shared ? j : j + shift) * columns + j] = 1;
  const { dtype, device } = x;
  return linear(x, tensor(place, { shape: [width, columns], dtype, device })); // exact: one product with 1 in each sum
}

/** Rewrites rows [first, end) of a parameter in place. */
export function rewriteRows(
  parameter: Tensor,
  [first, end]: readonly [number, number],
  change: (rows: Tensor) => Tensor,
): void {
  if (end === first) return;
  noGrad(() => {
    scope(() => {
      const rows = narrow(parameter, first, end - first);
      copyInto(rows, change(rows));
    });
  });
}
