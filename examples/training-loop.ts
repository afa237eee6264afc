/** A training loop written by hand: `npx tsx examples/training-loop.ts [--steps 200] [--out DIR] FILE...` (text, JSONL). */
import { parseArgs } from 'node:util';
import {
  AdamW,
  batchInputs,
  clipGradNorm,
  cosineSchedule,
  DataLoader,
  evaluate,
  ModuleFormerConfig,
  ModuleFormerForCausalLM,
  presetConfig,
  scope,
  TextDataset,
  trainTokenizer,
  weightDecayGroups,
} from '../lib/index.js';

const { values: flags, positionals: files } = parseArgs({
  options: { steps: { type: 'string', default: '200' }, out: { type: 'string', default: 'runs/by-hand' } },
  allowPositionals: true,
});
const steps = Number(flags.steps);

const tokenizer = await trainTokenizer({ files, vocabSize: 1024 });
const dataset = await TextDataset.build({ files, tokenizer, outDir: `${flags.out}/data`, delimiter: '\n\n' });
const config = new ModuleFormerConfig({ ...presetConfig('tiny').toJSON(), vocab_size: tokenizer.vocabSize });
const model = new ModuleFormerForCausalLM(config, { seed: 1 });
const optimizer = new AdamW(weightDecayGroups(model, 0.1), { betas: [0.9, 0.95] });
const schedule = cosineSchedule({ lr: 3e-3, warmupSteps: 20, totalSteps: steps, finalRatio: 0.1 });

model.train();
let step = 0;
for await (const batch of new DataLoader({ dataset, batchSize: 8, sequenceLength: 128 })) {
  // What is computed in a scope is freed with it, but for what it returns.
  const { loss, norm } = scope(() => {
    const output = model.forward({ ...batchInputs(batch, model.device), outputLogits: false });
    output.loss?.backward();
    const norm = clipGradNorm(model.parameters(), 1);
    optimizer.lr = schedule(step);
    optimizer.step(); // changes nothing when a gradient is NaN or infinite
    optimizer.zeroGrad();
    return { loss: output.loss?.detach(), norm };
  });
  // Until here everything was only enqueued; this waits, and lets Node do other things meanwhile.
  if (++step % 20 === 0)
    console.log(`step ${step}: loss ${await loss?.item()}, gradient norm ${await norm.item()}`);
  loss?.dispose();
  norm.dispose();
  if (step === steps) break;
}

const heldOut = new DataLoader({ dataset, batchSize: 8, sequenceLength: 128, split: 'validation' });
console.log(`perplexity on held-out text: ${(await evaluate(model, heldOut)).perplexity.toFixed(1)}`);
await model.savePretrained(`${flags.out}/model`);
await tokenizer.save(`${flags.out}/model`);
