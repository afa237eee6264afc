import { noGrad } from '../autograd/index.js';
import type { Batch } from '../data/loader.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { scope } from '../scope.js';
import type { Tensor } from '../tensor.js';
import { batchInputs } from '../training/batch.js';
import { EXPERT_KINDS, type ExpertKind } from './usage.js';

/** f64 of a model in f64. */
type Row = Float32Array | Float64Array;

/**
 * Runs a model over a batch, without gradients and in the mode it is in, and gives out what each router saw of the chosen
 * positions of the flattened batch.
 * @returns by block one row per position, of width D (G with the gate `gmm`).
 */
export async function routerFeatures(
  model: ModuleFormerForCausalLM,
  batch: Batch,
  positions: readonly number[],
): Promise<Record<ExpertKind, Row[]>[]> {
  const found = noGrad(() =>
    scope(() => {
      const { inputIds, documentStarts } = batchInputs(batch, model.device);
      const { routers } = model.forward({
        inputIds,
        documentStarts: documentStarts as Tensor,
        lastLogitsOnly: true,
        outputRouterFeatures: true,
      });
      return (routers ?? []).map(({ attention, mlp }) => ({
        attention: attention.features as Tensor,
        mlp: mlp.features as Tensor,
      }));
    }),
  );
  const rows: Record<ExpertKind, Row[]>[] = found.map(() => ({ attention: [], mlp: [] }));
  for (const [block, own] of found.entries()) {
    for (const kind of EXPERT_KINDS) {
      const width = own[kind].shape[1] as number;
      const values = (await own[kind].data()) as Row;
      own[kind].dispose();
      for (const i of positions) rows[block]?.[kind].push(values.subarray(i * width, (i + 1) * width));
    }
  }
  return rows;
}
