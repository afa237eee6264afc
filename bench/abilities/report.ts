// Tables in Markdown and pictures from the experiments' JSON files.
import { readFile, writeFile } from 'node:fs/promises';
import { markdownTable } from '../support/markdown.js';
import { svgOf, type Chart, type Series } from '../support/svg.js';
import type { efficiency } from './efficiency.js';
import type { emergence } from './emergence.js';
import type { extend } from './extend.js';
import type { probes } from './probes.js';
import { changeAt, changesAt, FRACTIONS, type specialise } from './specialise.js';
import { percent } from './workbench.js';

type Row = Record<string, string | number>;

/** What a section of bench/RESULTS.md shows of an experiment. */
export interface Shown {
  tables: Row[][];
  charts: Chart[];
}

type Result<F extends (...args: never[]) => Promise<unknown>> = Awaited<ReturnType<F>>;

function efficiencyShown({ results, ratios }: Result<typeof efficiency>): Shown {
  const rows = results.map((each): Row => {
    const seeds = Object.values(each.perplexities);
    return {
      model: each.model,
      'parameters, millions': (each.parameters / 1e6).toFixed(2),
      'active, millions': (each.active / 1e6).toFixed(2),
      'perplexity, by seed': seeds.map((value) => value.toFixed(2)).join(', '),
      'training, tokens/s': each.training.toFixed(0),
      'reading, tokens/s': each.reading.toFixed(0),
      'generating, tokens/s': each.generating.toFixed(0),
    };
  });
  const cell = (ratio: number, atLeast: boolean): string => `${atLeast ? 'above ' : ''}${ratio.toFixed(2)}`;
  const ratioRows = ratios.map(({ seed, atLeast, training, reading, generating, active }): Row => ({
    seed,
    'ratio in training': cell(training, atLeast),
    'in reading': cell(reading, atLeast),
    'in generating': cell(generating, atLeast),
    'active parameters of the dense model, times': cell(active, atLeast),
  }));
  const chart = (kind: 'training' | 'reading'): Chart => {
    const points = (own: typeof results): [number, number][] =>
      own.flatMap((each) =>
        Object.values(each.perplexities).map((value): [number, number] => [each[kind] / 1000, value]),
      );
    return {
      title: `perplexity against throughput, ${kind}`,
      xLabel: 'thousands of tokens a second',
      yLabel: 'perplexity',
      legend: 'left',
      series: [
        { name: 'dense', points: points(results.slice(1)) },
        { name: 'ModuleFormer', points: points(results.slice(0, 1)) },
      ],
    };
  };
  return { tables: [rows, ratioRows], charts: [chart('training'), chart('reading')] };
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

function routingCells(own: Result<typeof extend>['results']): Row {
  const cell = (of: (routing: NonNullable<(typeof own)[0]['routing']>) => string): string =>
    own.flatMap(({ routing }) => (routing ? [of(routing)] : [])).join(', ');
  return {
    'old text in new experts, %': cell(({ oldInNew }) => (100 * oldInNew).toFixed(1)),
    'new text, %': cell(({ newInNew }) => (100 * newInNew).toFixed(1)),
    'old domains without new experts': cell(({ oldWithoutNew }) => oldWithoutNew.toFixed(2)),
  };
}

/** Points of the models that lose less than a quarter on the old domains. */
function kept(results: Result<typeof extend>['results']): [number, number][] {
  return results
    .map((each): [number, number] => [each.new.after, percent(each.old.after, each.old.before)])
    .filter(([, change]) => change < 25);
}

function extendShown(result: Result<typeof extend>): Shown {
  const names = [...new Set(result.results.map(({ model }) => model))];
  const rows = names.map((model): Row => {
    const own = result.results.filter((each) => each.model === model);
    const list = (of: (each: (typeof own)[0]) => number, digits: number): string =>
      own.map((each) => of(each).toFixed(digits)).join(', ');
    return {
      model,
      seeds: own.map(({ seed }) => seed).join(', '),
      'old domains, before': list(({ old }) => old.before, 2),
      after: list(({ old }) => old.after, 2),
      'change, %': list(({ old }) => percent(old.after, old.before), 1),
      [`${result.new}, before`]: list((each) => each.new.before, 0),
      [`${result.new}, after`]: list((each) => each.new.after, 2),
      ...routingCells(own),
    };
  });
  const groups = [...new Set(result.results.map(({ group }) => group))];
  const series = groups.map((name): Series => {
    const own = result.results.filter(({ group }) => group === name);
    return { name, points: own.map((each) => [each.new.after, each.old.after] as const) };
  });
  const recognised = result.recognised.map(({ attention, mlp }, block): Row => ({
    block,
    "by the attention's router, %": (100 * attention).toFixed(1),
    "by the MLP's, %": (100 * mlp).toFixed(1),
  }));
  return {
    tables: [rows.map((row, i) => ({ '': i + 1, ...row })), recognised],
    charts: [
      {
        title: 'after learning a language',
        xLabel: `perplexity on ${result.new}`,
        yLabel: 'perplexity on the old domains',
        series,
        logarithmic: 'both',
        scattered: true,
      },
      {
        title: 'those that nearly keep the old domains',
        xLabel: `perplexity on ${result.new}`,
        yLabel: 'change on the old domains, %',
        series: groups.map((name) => ({
          name,
          points: kept(result.results.filter(({ group }) => group === name)),
        })),
        logarithmic: 'x',
        scattered: true,
      },
    ],
  };
}

/** A change in percent; a little below 0, which is chance, is 0. */
const atLeastNone = (change: number): string => Math.max(0, change).toFixed(1);

function specialiseShown({ results, recovered, speeds }: Result<typeof specialise>): Shown {
  const kinds = [...new Set(results.map(({ kind }) => kind))];
  const criteria = [...new Set(results.map(({ criterion }) => criterion))];
  const unpruned = (kind: string): number[] =>
    results
      .filter((each) => each.kind === kind && each.criterion === criteria[0] && each.fraction === 0)
      .map(({ perplexity }) => perplexity);
  const rows = kinds.flatMap((kind) =>
    criteria.map((criterion): Row => ({
      model: kind,
      criterion,
      'perplexity, by seed': unpruned(kind)
        .map((value) => value.toFixed(3))
        .join(', '),
      ...Object.fromEntries(
        FRACTIONS.slice(1).map((fraction) => [
          `${100 * fraction} %`,
          `${atLeastNone(changeAt(results, { kind, criterion, fraction }))} %`,
        ]),
      ),
      '50 %, by seed': changesAt(results, { kind, criterion, fraction: 0.5 }).map(atLeastNone).join(', '),
    })),
  );
  const speedRows = speeds.map(({ fraction, parameters, bytes, reading, training, generating }): Row => ({
    'experts pruned': `${100 * fraction} %`,
    'parameters, millions': (parameters / 1e6).toFixed(2),
    'memory, MB': (bytes / 1e6).toFixed(1),
    'training, tokens/s': training.toFixed(0),
    'reading, tokens/s': reading.toFixed(0),
    'generating, tokens/s': generating.toFixed(0),
  }));
  const charts = kinds.map((kind): Chart => {
    const series = criteria.map((criterion): Series => ({
      name: criterion,
      points: FRACTIONS.map((fraction) => {
        const change = changeAt(results, { kind, criterion, fraction });
        return [100 * fraction, mean(unpruned(kind)) * (1 + change / 100)] as const;
      }),
    }));
    return {
      title: kind,
      xLabel: 'experts pruned, %',
      yLabel: 'perplexity',
      series,
      logarithmic: 'y',
      legend: 'left',
    };
  });
  const recoveredRows = recovered.map(({ kind, before, whole, halved }): Row => ({
    model: kind,
    before: before.toFixed(3),
    'all experts, tuned on': whole.toFixed(3),
    'half of the experts, tuned on': halved.toFixed(3),
    'change, %': percent(halved, whole).toFixed(1),
  }));
  return { tables: [rows, recoveredRows, speedRows], charts };
}

function emergenceShown({ results }: Result<typeof emergence>): Shown {
  const list = (values: readonly number[]): string => values.map((value) => value.toFixed(3)).join(' ');
  const rows = results.map((each): Row => ({
    balancing: each.balancing,
    seed: each.seed,
    perplexity: each.perplexity.toFixed(2),
    'I(MLP expert; domain)': list(each.domainInformation.map(({ mlp }) => mlp)),
    'I(attention expert; domain)': list(each.domainInformation.map(({ attention }) => attention)),
    'untrained, MLP': list(each.untrained.map(({ mlp }) => mlp)),
    'H(MLP expert)': list(each.marginalEntropy),
    'H(MLP expert, given the token)': list(each.conditionalEntropy),
  }));
  const kinds = [...new Set(results.map(({ balancing }) => balancing))];
  const chart = (kind: 'mlp' | 'attention'): Chart => ({
    title: `information between ${kind === 'mlp' ? 'MLP' : kind} expert and domain`,
    xLabel: 'block',
    yLabel: 'nats',
    legend: 'left',
    series: kinds.map((balancing) => {
      const own = results.filter((each) => each.balancing === balancing);
      const blocks = own[0]?.domainInformation ?? [];
      return {
        name: balancing,
        points: blocks.map(
          (_, block) =>
            [block, mean(own.map((each) => each.domainInformation[block]?.[kind] ?? NaN))] as const,
        ),
      };
    }),
  });
  return { tables: [rows], charts: [chart('mlp'), chart('attention')] };
}

function probesShown({ steps, results }: Result<typeof probes>): Shown {
  const rows = results.map(({ model, byFactor, usualRange }): Row => ({
    [`after ${steps} steps`]: model,
    ...Object.fromEntries(
      Object.entries(byFactor)
        .sort(([a], [b]) => Number(a) - Number(b))
        .map(([factor, perplexity]) => [`learning rate x ${factor}`, perplexity.toFixed(1)]),
    ),
    'x 1, weights N(0, 0.02)': usualRange?.toFixed(1) ?? '',
  }));
  return { tables: [rows], charts: [] };
}

const shown: Record<string, (result: never) => Shown> = {
  efficiency: efficiencyShown,
  extend: extendShown,
  specialise: specialiseShown,
  emergence: emergenceShown,
  probes: probesShown,
};

/** What to show of the content of a JSON file. */
export function show(result: { name: string }): Shown {
  const draw = Object.hasOwn(shown, result.name) ? shown[result.name] : undefined;
  if (!draw) throw new Error(`'${result.name}' is no experiment on abilities`);
  return draw(result as never);
}

/** An experiment on languages that was run in parts (`--seeds`, `--arms`) as one. */
function joined(parts: readonly Named[]): Named {
  const [first, ...rest] = parts as [Named, ...Named[]];
  if (rest.length === 0) return first;
  if (first.name !== 'extend') throw new Error(`there are ${parts.length} results of ${first.name}`);
  const all = parts as (Named & Result<typeof extend>)[];
  return {
    ...first,
    results: all.flatMap(({ results }) => results).sort((a, b) => a.seed - b.seed),
    recognised: all.find(({ recognised }) => recognised.length > 0)?.recognised ?? [],
  } as Named;
}

interface Named {
  name: string;
}

/** Prints the tables of JSON files; pictures go beside bench/RESULTS.md. */
export async function report(files: readonly string[]): Promise<void> {
  const byName = new Map<string, Named[]>();
  for (const file of files) {
    const result = JSON.parse(await readFile(file, 'utf8')) as Named;
    byName.set(result.name, [...(byName.get(result.name) ?? []), result]);
  }
  for (const [name, parts] of byName) {
    const { tables, charts } = show(joined(parts));
    console.log(`${name}\n\n${tables.map(markdownTable).join('\n')}`);
    if (charts.length > 0) await writeFile(new URL(`../${name}.svg`, import.meta.url), svgOf(charts));
  }
}
