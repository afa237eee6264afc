// How long Node's event loop waits while a model of the quickstart's size trains.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { ModuleFormerConfig } from '../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { clipGradNorm } from '../lib/optimizer/clip.js';
import { scope } from '../lib/scope.js';
import type { Section } from './support/measure.js';

const B = 8;
const T = 128;
const SECONDS = 15;
const LIMIT_MS = 20;
/** Of the timer whose delay is measured; it is part of what is shown. */
const TIMER_MS = 2;

function batch(step: number, vocabSize: number): number[][] {
  return Array.from({ length: B }, (_, b) =>
    Array.from({ length: T }, (_, t) => (t * 31 + b * 7 + step * 13) % vocabSize),
  );
}

/** The shape of examples/quickstart. */
function quickstartConfig(): ModuleFormerConfig {
  return new ModuleFormerConfig({
    vocab_size: 1024,
    n_embd: 192,
    n_layer: 3,
    n_head: 4,
    att_hidden: 192,
    ffd_hidden: 192,
    gating_size: 64,
    n_att_experts: 4,
    n_mlp_experts: 8,
    aux_loss_weight: 0.01,
  });
}

/** Trains for some seconds: percentiles of the event loop's delay. The limit is that of p99. */
export async function run(): Promise<Section> {
  const config = quickstartConfig();
  using model = new ModuleFormerForCausalLM(config, { seed: 1 }).train();
  const optimizer = new AdamW(model.parameters(), { lr: 3e-4 });
  let steps = 0;
  const trainFor = async (seconds: number): Promise<void> => {
    const end = performance.now() + seconds * 1000;
    for (; performance.now() < end; steps++) {
      const loss = scope(() => {
        const inputIds = batch(steps, config.vocab_size);
        const out = model.forward({ inputIds, labels: inputIds, outputLogits: false });
        out.loss?.backward();
        clipGradNorm(model.parameters(), 1);
        optimizer.step();
        optimizer.zeroGrad();
        return out.loss;
      });
      await loss?.item();
      loss?.dispose();
    }
  };
  await trainFor(2);
  steps = 0;
  const histogram = monitorEventLoopDelay({ resolution: TIMER_MS });
  histogram.enable();
  const start = performance.now();
  await trainFor(SECONDS);
  const elapsed = (performance.now() - start) / 1000;
  histogram.disable();
  const ms = (nanoseconds: number): number => Number((nanoseconds / 1e6).toFixed(1));
  return {
    name: `responsiveness: event-loop delay while a model of the quickstart's shape trains, ${B} x ${T} tokens a step`,
    rows: [
      {
        steps,
        'tokens/s': Math.round((steps * B * T) / elapsed),
        'p50 ms': ms(histogram.percentile(50)),
        'p99 ms': ms(histogram.percentile(99)),
        'p99.9 ms': ms(histogram.percentile(99.9)),
        'max ms': ms(histogram.max),
        'limit of p99, ms': LIMIT_MS,
      },
    ],
  };
}
