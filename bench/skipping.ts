import { groupedGemm, layerNorm, linear, noGrad, reshape } from '../lib/autograd/index.js';
import { attentionKinds, type Handle } from '../lib/native/binding.js';
import { native } from '../lib/native/load.js';
import { createRandom } from '../lib/data/random.js';
import type { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { scope } from '../lib/scope.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { median, type Section } from './support/measure.js';
import { batchOf, brownBytes, byteModel, train } from './support/text.js';

const TRAINED_T = 512;
const STEPS = 600;
const T = 8192;
const REPEATS = 5;
const STICK_BREAKING = attentionKinds.indexOf('stickBreaking');

interface Vectors {
  q: Tensor;
  k: Tensor;
  v: Tensor;
}

/** What attention gets in each block of the model for these ids [1, T]: q [1, T, K, H, C]; k and v [1, T, H, C]. */
function attentionInputs(model: ModuleFormerForCausalLM, inputIds: Tensor): Vectors[] {
  const { n_head: H, headSize: C, n_embd: D, k_att: K, n_layer } = model.config;
  const parameters = new Map(model.namedParameters());
  return scope(() =>
    noGrad(() => {
      const { hiddenStates, routing } = model.forward({
        inputIds,
        lastLogitsOnly: true,
        outputHiddenStates: true,
      });
      return Array.from({ length: n_layer }, (_, layer) => {
        const of = (name: string): Tensor => {
          const found = parameters.get(`transformer.h.${layer}.${name}`);
          if (!found) throw new Error(`the model has no transformer.h.${layer}.${name}`);
          return found;
        };
        const before = reshape(hiddenStates?.[layer] as Tensor, [T, D]);
        const x = layerNorm(before, of('ln_1.weight'), of('ln_1.bias'));
        const plan = routing?.[layer]?.attention;
        if (!plan) throw new Error('the model did not record its routing');
        const rows = { inputRows: 'token', outputRows: 'slot' } as const;
        return {
          q: reshape(groupedGemm(x, of('attn.q_proj.experts.weight'), plan, rows), [1, T, K, H, C]),
          k: reshape(linear(x, of('attn.k_proj.weight'), of('attn.k_proj.bias')), [1, T, H, C]),
          v: reshape(linear(x, of('attn.v_proj.weight'), of('attn.v_proj.bias')), [1, T, H, C]),
        };
      });
    }),
  );
}

/** The same shapes with logits of mean -8: the stick outlasts all keys, and no tile is skipped. */
function unskippable({ q, k, v }: Vectors): Vectors {
  const C = q.shape.at(-1) as number;
  const vectors = (shape: readonly number[], first: number): Tensor => {
    const random = createRandom(shape.length);
    const numel = shape.reduce((a, b) => a * b, 1);
    const values = Float32Array.from({ length: numel }, (_, i) =>
      i % C === 0 ? first : Math.sqrt(12) * (random.next() - 0.5),
    );
    return tensor(values, { shape });
  };
  return {
    q: vectors(q.shape, -8 * Math.sqrt(C)),
    k: vectors(k.shape, 1),
    v: vectors(v.shape, 0.5),
  };
}

/** Median seconds of attention forward and backward. */
async function secondsOf({ q, k, v }: Vectors): Promise<{ forward: number; backward: number }> {
  const free = (handles: readonly (Handle | null)[]): void => {
    for (const handle of handles) if (handle !== null) native.dispose(handle);
  };
  const forward = (): (Handle | null)[] =>
    native.attention(STICK_BREAKING, q.id, k.id, v.id, null, null, T, true, false, true);
  const [out, state, live] = forward() as [Handle, Handle, Handle | null];
  const backward = (): Handle[] =>
    native.attentionBackward(
      ...([STICK_BREAKING, q.id, k.id, v.id, null, null, T, true, false, out, state, live, q.id] as const),
    );
  const time = async (run: () => (Handle | null)[]): Promise<number> => {
    const seconds: number[] = [];
    for (let i = 0; i < REPEATS; i++) {
      const start = performance.now();
      free(run());
      await native.synchronize();
      seconds.push((performance.now() - start) / 1000);
    }
    return median(seconds);
  };
  const result = { forward: await time(forward), backward: await time(backward) };
  free([out, state, live]);
  return result;
}

/**
 * Attention in the blocks of a model of ours, trained here at T = 512, on a text of 8192: against the same shapes where
 * the stick never runs out. A tile is skipped when the stick of all its rows is below 2e-9 (f32): what is left out of a
 * row is then at most 2e-9 max|v|.
 */
export async function run(): Promise<Section> {
  const text = brownBytes();
  const model = byteModel({}, 'f32');
  const losses = await train(model, text, { shape: [4, TRAINED_T], steps: STEPS, lr: 2e-3 });
  const inputIds = batchOf(text, [1, T], STEPS);
  const ms = (seconds: number): number => Number((1e3 * seconds).toFixed(1));
  const rows: Section['rows'] = [];
  for (const [block, vectors] of attentionInputs(model, inputIds).entries()) {
    const [there, full] = [await secondsOf(vectors), await secondsOf(unskippable(vectors))];
    rows.push({
      block,
      T,
      'forward ms': ms(there.forward),
      'forward ms, nothing skipped': ms(full.forward),
      'times as fast, forward': Number((full.forward / there.forward).toFixed(1)),
      'backward ms': ms(there.backward),
      'backward ms, nothing skipped': ms(full.backward),
      'times as fast, backward': Number((full.backward / there.backward).toFixed(1)),
    });
  }
  model.dispose();
  const loss = losses.at(-1)?.toFixed(2);
  return {
    name: `skipping: model over bytes (D 128, L 3, H 2, C 64, K 2) after ${STEPS} steps at T ${TRAINED_T}, loss ${loss}`,
    rows,
  };
}
