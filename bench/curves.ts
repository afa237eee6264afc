import type { Section } from './support/measure.js';
import { brownBytes, byteModel, train } from './support/text.js';

const STEPS = 500;
const B = 8;
const T = 128;
/** The mean of the loss over so many steps is one row. */
const WINDOW = 20;

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** The same model, data and seed trained in f32 and in bf16 (f32 sums, router, losses and optimizer): both curves. */
export async function run(): Promise<Section> {
  const text = brownBytes();
  const curves: number[][] = [];
  for (const dtype of ['f32', 'bf16'] as const) {
    const model = byteModel({}, dtype);
    curves.push(await train(model, text, { shape: [B, T], steps: STEPS, lr: 2e-3 }));
    model.dispose();
  }
  const [f32, bf16] = curves as [number[], number[]];
  const rows = Array.from({ length: STEPS / WINDOW }, (_, i) => {
    const [from, to] = [i * WINDOW, (i + 1) * WINDOW];
    const [a, b] = [mean(f32.slice(from, to)), mean(bf16.slice(from, to))];
    return {
      steps: `${from + 1}-${to}`,
      'loss, f32': Number(a.toFixed(4)),
      'loss, bf16': Number(b.toFixed(4)),
      'bf16 - f32': (b - a).toFixed(4),
    };
  });
  return { name: `curves: loss in nats a byte over ${STEPS} steps of ${B} x ${T} bytes, f32 and bf16`, rows };
}
