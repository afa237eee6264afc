// How well could a router tell a token of new text from one of old, by what it sees of it in a model that never saw new
// text? A classifier of the routers' own form on the inputs of each router bounds what new rows can do.
import {
  crossEntropy,
  gelu,
  linear,
  noGrad,
  randomNormal,
  softmax,
  zeros,
} from '../../lib/autograd/index.js';
import type { Batch } from '../../lib/data/loader.js';
import { routerFeatures } from '../../lib/experts/router-features.js';
import { EXPERT_KINDS, type ExpertKind } from '../../lib/experts/usage.js';
import type { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { AdamW } from '../../lib/optimizer/adamw.js';
import { scope } from '../../lib/scope.js';
import { tensor, type Tensor } from '../../lib/tensor.js';
import { pretrained } from './models.js';
import { obtain } from './recipes.js';
import { batchesOf, type Workbench } from './workbench.js';

/** Of each kind of text, for training and for the measurement. */
const TOKENS = 8192;
const HIDDEN = 64;
const STEPS = 300;
/** The part of old tokens that may be taken for new ones. */
const FALSE = 0.01;

/** Per router [n][D]. */
type Inputs = Record<ExpertKind, number[][]>[];

/** Of new tokens, the part that is recognised when one in a hundred old tokens is mistaken for one, by block. */
export async function separability(bench: Workbench, seed: number): Promise<Record<ExpertKind, number>[]> {
  const model = await obtain(bench, pretrained(bench, seed));
  const { domains, newDomain } = bench.scale;
  const inputs = async (
    names: readonly string[],
    of: (name: string) => Promise<Batch[]>,
  ): Promise<Inputs> => {
    const all: Inputs = model.config.mlpExperts.map(() => ({ attention: [], mlp: [] }));
    for (const name of names) await readInputs(model, await of(name), TOKENS / names.length, all);
    return all;
  };
  const seen = async (name: string): Promise<Batch[]> =>
    batchesOf(await bench.texts(bench.whole(name as typeof newDomain)), 'train', bench.scale);
  const unseen = (name: string): Promise<Batch[]> => Promise.resolve(bench.heldOut[name] ?? []);
  const [oldSeen, newSeen] = [await inputs(domains, seen), await inputs([newDomain], seen)];
  const [oldUnseen, newUnseen] = [await inputs(domains, unseen), await inputs([newDomain], unseen)];
  model.dispose();
  const results: Record<ExpertKind, number>[] = [];
  for (let block = 0; block < oldSeen.length; block++) {
    const recall = async (kind: ExpertKind): Promise<number> => {
      const [a, b, c, d] = [oldSeen, newSeen, oldUnseen, newUnseen].map((each) => each[block]?.[kind] ?? []);
      return recallOf({ old: a ?? [], fresh: b ?? [] }, { old: c ?? [], fresh: d ?? [] }, [seed, block]);
    };
    results.push({ attention: await recall('attention'), mlp: await recall('mlp') });
  }
  return results;
}

async function readInputs(
  model: ModuleFormerForCausalLM,
  batches: readonly Batch[],
  count: number,
  all: Inputs,
): Promise<void> {
  const tokens = batches.reduce((sum, { inputIds }) => sum + inputIds.length, 0);
  const stride = Math.max(1, Math.floor(tokens / count));
  for (const batch of batches) {
    const positions = Array.from({ length: Math.ceil(batch.inputIds.length / stride) }, (_, i) => i * stride);
    for (const [block, own] of (await routerFeatures(model, batch, positions)).entries())
      for (const kind of EXPERT_KINDS) for (const row of own[kind]) all[block]?.[kind].push([...row]);
  }
}

interface Sides {
  old: number[][];
  fresh: number[][];
}

async function recallOf(seen: Sides, unseen: Sides, key: [number, number]): Promise<number> {
  const width = seen.old[0]?.length ?? 0;
  const matrix = (rows: number[][]): Tensor =>
    tensor(rows.flat(), { dtype: 'f32', shape: [rows.length, width] });
  const x = matrix([...seen.old, ...seen.fresh]);
  const labels = tensor(
    Int32Array.from({ length: seen.old.length + seen.fresh.length }, (_, i) => Number(i >= seen.old.length)),
    { dtype: 'i32' },
  );
  const weights = [
    randomNormal([HIDDEN, width], [key[0], 2 * key[1]], { standardDeviation: 1 / Math.sqrt(width) }),
    zeros([HIDDEN]),
    randomNormal([2, HIDDEN], [key[0], 2 * key[1] + 1], { standardDeviation: 1 / Math.sqrt(HIDDEN) }),
  ] as [Tensor, Tensor, Tensor];
  for (const each of weights) each.requiresGrad = true;
  const logits = (rows: Tensor): Tensor => linear(gelu(linear(rows, weights[0], weights[1])), weights[2]);
  const optimizer = new AdamW(weights, { lr: 0.01, weightDecay: 0.01 });
  for (let step = 0; step < STEPS; step++) {
    optimizer.lr = 0.01 * (1 - step / STEPS);
    scope(() => {
      crossEntropy(logits(x), labels).backward();
      optimizer.step();
      optimizer.zeroGrad();
    });
  }
  const scores = async (rows: number[][]): Promise<number[]> => {
    const probabilities = scope(() => noGrad(() => softmax(logits(matrix(rows)))));
    const values = (await probabilities.data()) as Float32Array;
    probabilities.dispose();
    return rows.map((_, i) => values[2 * i + 1] as number);
  };
  const ranked = (await scores(unseen.old)).sort((a, b) => b - a);
  const threshold = ranked[Math.floor(FALSE * ranked.length)] as number;
  const found = await scores(unseen.fresh);
  for (const each of [x, labels, ...weights]) each.dispose();
  return found.filter((score) => score > threshold).length / found.length;
}
