import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { ratioAtEqualQuality } from '../bench/abilities/efficiency.js';
import { LoraAdapters, rankOfSize } from '../bench/abilities/lora.js';
import { manText } from '../bench/abilities/man-text.js';
import { RowsAdamW } from '../bench/abilities/new-tokens.js';
import { obtain, trained, type Recipe } from '../bench/abilities/recipes.js';
import { show } from '../bench/abilities/report.js';
import { changeAt } from '../bench/abilities/specialise.js';
import type { Workbench } from '../bench/abilities/workbench.js';
import { DataLoader } from '../lib/data/loader.js';
import { DenseConfig } from '../lib/model/dense-config.js';
import { DenseForCausalLM } from '../lib/model/dense.js';
import { AdamW } from '../lib/optimizer/adamw.js';
import { scope } from '../lib/scope.js';
import { evaluate } from '../lib/training/evaluate.js';
import { batchInputs } from '../lib/training/batch.js';
import { numbers } from './support/compare.js';
import { letterBatches } from './support/experts.js';
import { temporaryDirectory } from './support/files.js';
import { tinyDataset } from './support/training.js';

const denseModel = (): DenseForCausalLM =>
  new DenseForCausalLM(new DenseConfig({ vocab_size: 27, n_embd: 16, n_layer: 2, n_head: 2 }), { seed: 1 });

test('the text of a manual page has no macros and no escapes', (t) => {
  const page = String.raw`.\" a comment
.TH LS 1 "März 2023"
.SH BEZEICHNUNG
ls \- Verzeichnis\(hyinhalte auflisten
.PP
Die Option \fB\-a\fP und \f[I]Datei\f[] \[lq]hier\[rq].
.B "fetter Text"
.if n .nop nichts
\&.punkt \en`;
  t.is(
    manText(page),
    'BEZEICHNUNG\nls - Verzeichnis-inhalte auflisten\n\nDie Option -a und Datei “hier”.\nfetter Text\n.punkt \\n',
  );
});

test('low-rank adapters train the maps of the blocks and nothing else', async (t) => {
  const dataset = await tinyDataset(await temporaryDirectory(t));
  const [model, original] = [denseModel(), denseModel()];
  const rank = rankOfSize(model, 1000);
  t.deepEqual([rank, rankOfSize(model, 1)], [2, 1]);
  const batches = await letterBatches();
  const before = (await evaluate(model, batches)).loss;
  const adapters = new LoraAdapters(model, { rank, seed: 0 });
  t.is((await evaluate(model, batches)).loss, before, 'at first they add nothing');
  await adapters.train(new DataLoader({ dataset, batchSize: 4, sequenceLength: 16 }), {
    steps: 20,
    schedule: Object.assign(() => 0.01, { description: { type: 'constant' } }) as never,
    optimizer: new AdamW(adapters.parameters(), { weightDecay: 0 }),
  });
  adapters.dispose();
  t.true((await evaluate(model, batches)).loss < before - 0.001);
  const old = new Map(original.namedParameters());
  for (const [name, parameter] of model.namedParameters()) {
    const [a, b] = [await numbers(old.get(name)!), await numbers(parameter)];
    if (/^transformer\.h\..*weight$/.test(name) && parameter.shape.length === 2) t.notDeepEqual(b, a, name);
    else t.deepEqual(b, a, name);
  }
});

test('rows outside the mask stay as they are', async (t) => {
  const model = denseModel();
  const [, table] = [...model.namedParameters()].find(([name]) => name === 'transformer.wte.weight')!;
  const before = await numbers(table);
  const [batch] = await letterBatches();
  const token = batch!.inputIds[0]!;
  const mask = Array.from({ length: 27 }, (_, id) => Number(id === token));
  const optimizer = new RowsAdamW([{ params: [table], weightDecay: 0 }], { lr: 0.1 }, [table], mask);
  scope(() => model.forward(batchInputs(batch!, 'cpu')).loss?.backward());
  optimizer.step();
  const after = await numbers(table);
  const changed = [...after.keys()].filter((i) => after[i] !== before[i]).map((i) => Math.floor(i / 16));
  t.deepEqual([...new Set(changed)], [token]);
});

test('a recipe is followed once, and a lock whose process is gone does not hold', async (t) => {
  const cache = await temporaryDirectory(t);
  const bench = { cache, heldOut: { letters: await letterBatches() } } as unknown as Workbench;
  let runs = 0;
  const recipe = (seed: number): Recipe<DenseForCausalLM> => ({
    name: 'a model',
    key: { seed },
    train: () => {
      runs++;
      return Promise.resolve(denseModel());
    },
    load: (dir) => DenseForCausalLM.fromPretrained(dir),
  });
  const [first, second] = await Promise.all([trained(bench, recipe(1)), trained(bench, recipe(1))]);
  t.deepEqual(first.perplexities, second.perplexities);
  t.is(
    (await evaluate(await obtain(bench, recipe(1)), bench.heldOut['letters']!)).perplexity,
    first.perplexities['letters']!,
  );
  t.is(runs, 1);
  const [name] = (await readdir(join(cache, 'models'))) as [string];
  await trained({ ...bench, cache: join(cache, 'other') }, recipe(1));
  t.is(runs, 2);
  t.deepEqual(await readdir(join(cache, 'other', 'models')), [name]);
  await writeFile(join(cache, 'models', `${name}.lock`), '999999999');
  await trained(bench, recipe(2));
  t.is(runs, 3);
});

const measured = (model: string, perplexity: number, speed: number) => ({
  model,
  perplexities: { 0: perplexity },
  parameters: 1e6,
  active: 1e6 / speed,
  training: speed,
  reading: speed,
  generating: speed,
});

test('throughput at equal perplexity lies between that of the dense models next to it', (t) => {
  const dense = [measured('dense 1', 20, 8), measured('dense 2', 10, 2), measured('dense 3', 5, 1)];
  const between = ratioAtEqualQuality([measured('ModuleFormer', Math.sqrt(200), 8), ...dense], 0);
  t.false(between.atLeast);
  t.true(Math.abs(between.training - 2) < 1e-12 && Math.abs(between.active - 2) < 1e-12);
  const better = ratioAtEqualQuality([measured('ModuleFormer', 4, 8), ...dense], 0);
  t.true(better.atLeast);
  t.is(better.reading, 8);
});

test('tables and pictures come from the results', (t) => {
  const results = [measured('ModuleFormer', 12, 8), measured('dense 1', 20, 8), measured('dense 2', 10, 2)];
  const ratios = [{ seed: 0, ...ratioAtEqualQuality(results, 0) }];
  const { tables, charts } = show({ name: 'efficiency', results, ratios } as never);
  t.is(tables[0]!.length, 3);
  t.is(tables[1]![0]!['ratio in training'], ratios[0]!.training.toFixed(2));
  t.deepEqual(charts[0]!.series[1]!.points, [[0.008, 12]]);
  t.throws(() => show({ name: 'toString' }), { message: /no experiment/ });
  const pruned = [0, 0.5].flatMap((fraction) =>
    [0, 1].map((seed) => ({
      seed,
      kind: 'k',
      criterion: 'random' as const,
      fraction,
      perplexity: fraction === 0 ? 10 : 11 + seed,
    })),
  );
  t.true(Math.abs(changeAt(pruned, { kind: 'k', criterion: 'random', fraction: 0.5 }) - 15) < 1e-9);
});
