import { affine, randomNormal, scale } from '../autograd/index.js';
import { ConfigError, ValueError } from '../errors.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import type { Tensor } from '../tensor.js';
import {
  expertCounts,
  expertParameterNames,
  parametersOf,
  rewriteRows,
  routerPrefix,
  withExperts,
} from './rebuild.js';
import { EXPERT_KINDS, type ExpertKind } from './usage.js';

/** How many experts a dense block becomes. */
export interface UpcycleOptions {
  /** E and K of attention. */
  attention: { experts: number; k: number };
  /** E and K of the MLP. */
  mlp: { experts: number; k: number };
  /** Standard deviation of the routers' first logits, roughly: what breaks ties. Default 0.01. */
  noise?: number;
  /** Of what is random. Default 0. */
  seed?: number;
}

/**
 * Makes a mixture of experts of a dense ModuleFormer, one with E = K = 1 in every block, whose gate is exactly 1: every
 * expert is a copy, its output scaled by E / K, and the routers' logits are 0 but for a little noise that breaks ties.
 * All gates then are 1 / E, so that the outputs are the dense model's up to that noise. The model given stays as it is.
 *
 * @throws ConfigError for a model that is not dense, or E and K that do not fit each other; ValueError for bad noise.
 */
export function upcycle(dense: ModuleFormerForCausalLM, options: UpcycleOptions): ModuleFormerForCausalLM {
  const { noise = 0.01, seed = 0, attention, mlp } = options;
  if (!(noise > 0 && noise < Infinity))
    throw new ValueError(`upcycle: noise is ${noise}, expected a number above 0`);
  for (const kind of EXPERT_KINDS) {
    const counts = expertCounts(dense.config, kind);
    if (counts.some((count) => count !== 1)) {
      throw new ConfigError(
        `upcycle: the model has ${Math.max(...counts)} ${kind} experts in a block, expected a dense one with 1`,
      );
    }
  }
  const copies = (count: number): number[] => Array<number>(count).fill(0);
  const blocks = Array.from({ length: dense.config.n_layer }, () => ({
    attention: copies(attention.experts),
    mlp: copies(mlp.experts),
  }));
  const sparse = withExperts(dense, blocks, { changes: { k_att: attention.k, k_mlp: mlp.k }, seed });
  const parameters = parametersOf(sparse);
  for (let block = 0; block < dense.config.n_layer; block++) {
    for (const kind of EXPERT_KINDS) {
      const { experts, k } = options[kind];
      const { output } = expertParameterNames(sparse.config, kind, block);
      rewrite(parameters, output, (x) => scale(x, experts / k));
      startRouter(sparse, parameters, kind, block, noise, seed);
    }
  }
  return sparse;
}

function rewrite(parameters: ReadonlyMap<string, Tensor>, name: string, change: (x: Tensor) => Tensor): void {
  const parameter = parameters.get(name) as Tensor;
  rewriteRows(parameter, [0, parameter.shape[0] as number], change);
}

/**
 * Gives a router logits near 0. The dense model's was never trained (its gate is 1 whatever its weights), only decayed:
 * its hidden layer starts anew as well.
 */
function startRouter(
  { config }: ModuleFormerForCausalLM,
  parameters: ReadonlyMap<string, Tensor>,
  kind: ExpertKind,
  block: number,
  noise: number,
  seed: number,
): void {
  const gate = `${routerPrefix(kind, block)}.gate.`;
  let stream = 4 * (2 * block + EXPERT_KINDS.indexOf(kind));
  const normal = (name: string, standardDeviation: number): void => {
    rewrite(parameters, gate + name, ({ shape, dtype, device }) =>
      randomNormal(shape, [seed, stream++], { dtype, device, standardDeviation }),
    );
  };
  const { gate_type, n_embd: D, gating_size: G } = config;
  // The router's input has been through a layer norm: its elements are about 1 in size.
  switch (gate_type) {
    case 'linear':
      normal('w_gate.0.weight', noise / Math.sqrt(D));
      break;
    case 'mlp':
      normal('w_gate.0.weight', 1 / Math.sqrt(D));
      rewrite(parameters, `${gate}w_gate.0.bias`, (x) => affine(x, 0, 0));
      normal('w_gate.3.weight', noise / Math.sqrt(G));
      break;
    case 'gmm':
      // Cosines do not get smaller with the weights: the temperature makes the logits small.
      normal('w_gate.weight', 1 / Math.sqrt(D));
      normal('expert_centroids', 1);
      rewrite(parameters, `${gate}temperature`, (x) => affine(x, 0, Math.log(noise)));
  }
}
