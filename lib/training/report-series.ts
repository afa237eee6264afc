import { loadBalance, meanEntropy, type BlockLoad, type MetricsRecord } from './metrics.js';

/** More points than this are not to be told apart on a screen. */
const MAX_POINTS = 1200;
const MAX_LOAD_COLUMNS = 72;
const SMOOTH_FROM_POINTS = 50;

/** Columns of equal length for the charts, one entry per point; null where nothing finite was measured. */
export interface Series {
  step: number[];
  crossEntropy: (number | null)[];
  smoothed: (number | null)[];
  validation: (number | null)[];
  loss: (number | null)[];
  auxLoss: (number | null)[];
  lr: (number | null)[];
  gradNorm: (number | null)[];
  tokensPerSecond: (number | null)[];
  concentrationLoss: (number | null)[];
  marginalEntropy: (number | null)[];
  conditionalEntropy: (number | null)[];
  attentionBalance: (number | null)[];
  mlpBalance: (number | null)[];
}

/** `values` cut into at most `count` runs of neighbours, as equal in length as can be. */
function groups<T>(values: readonly T[], count: number): T[][] {
  const size = Math.min(values.length, count);
  const edge = (index: number): number => Math.floor((index * values.length) / size);
  return Array.from({ length: size }, (_, index) => values.slice(edge(index), edge(index + 1)));
}

function mean(values: readonly number[]): number | null {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0) return null;
  return Number((finite.reduce((sum, value) => sum + value, 0) / finite.length).toPrecision(6));
}

/** Means over a window of about a fiftieth of the points, centred so as not to lag; all null where there are few points. */
function smooth(values: readonly (number | null)[]): (number | null)[] {
  if (values.length < SMOOTH_FROM_POINTS) return values.map(() => null);
  const reach = Math.ceil(values.length / 100);
  return values.map((_, index) => {
    // Shorter towards both ends, to stay centred there too.
    const side = Math.min(reach, index, values.length - 1 - index);
    return mean(values.slice(index - side, index + side + 1).filter((value) => value !== null));
  });
}

/** The charts' columns; a point stands for one record, or for the mean of several neighbours in a long run. */
export function buildSeries(records: readonly MetricsRecord[]): Series {
  const points = groups(records, MAX_POINTS);
  const column = (value: (record: MetricsRecord) => number): (number | null)[] =>
    points.map((point) => mean(point.map(value)));
  const balance = (kind: keyof BlockLoad): (number | null)[] =>
    column(({ expertLoad = [] }) => mean(expertLoad.map((block) => loadBalance(block[kind]))) ?? NaN);
  const crossEntropy = column((record) => record.crossEntropy);
  return {
    step: points.map((point) => point.at(-1)?.step ?? 0),
    crossEntropy,
    smoothed: smooth(crossEntropy),
    validation: points.map((point) => mean(point.flatMap(({ validation }) => validation?.loss ?? []))),
    loss: column((record) => record.loss),
    auxLoss: column((record) => record.auxLoss),
    lr: column((record) => record.lr),
    gradNorm: column((record) => record.gradNorm),
    tokensPerSecond: column((record) => record.tokensPerSecond),
    concentrationLoss: column(({ concentrationLoss = NaN }) => concentrationLoss),
    marginalEntropy: column(({ routerEntropy = [] }) => meanEntropy(routerEntropy).marginal),
    conditionalEntropy: column(({ routerEntropy = [] }) => meanEntropy(routerEntropy).conditional),
    attentionBalance: balance('attention'),
    mlpBalance: balance('mlp'),
  };
}

/** Shares of the routed rows in thousandths, [block][expert]. */
export type LoadTable = number[][];

export interface LoadHistory {
  /** The last step of each column. */
  step: number[];
  /** Thousandths, [block][column][expert]. */
  attention: number[][][];
  mlp: number[][][];
}

function sumLoads(records: readonly MetricsRecord[], kind: keyof BlockLoad, block: number): number[] {
  const total: number[] = [];
  for (const { expertLoad } of records) {
    expertLoad?.[block]?.[kind].forEach((rows, expert) => {
      total[expert] = (total[expert] ?? 0) + rows;
    });
  }
  return total;
}

function thousandths(load: readonly number[]): number[] {
  const total = load.reduce((sum, rows) => sum + rows, 0);
  return load.map((rows) => (total > 0 ? Math.round((1000 * rows) / total) : 0));
}

function blockCount(records: readonly MetricsRecord[]): number {
  return records.reduce((count, { expertLoad }) => Math.max(count, expertLoad?.length ?? 0), 0);
}

/** Every expert's share of the rows that its router sent out over all `records`, one row per block. */
export function averageLoad(records: readonly MetricsRecord[], kind: keyof BlockLoad): LoadTable {
  return Array.from({ length: blockCount(records) }, (_, block) =>
    thousandths(sumLoads(records, kind, block)),
  );
}

/** How the shares changed: the run in at most 72 columns. */
export function loadHistory(records: readonly MetricsRecord[]): LoadHistory {
  const columns = groups(records, MAX_LOAD_COLUMNS);
  const history = (kind: keyof BlockLoad): number[][][] =>
    Array.from({ length: blockCount(records) }, (_, block) =>
      columns.map((column) => thousandths(sumLoads(column, kind, block))),
    );
  return {
    step: columns.map((column) => column.at(-1)?.step ?? 0),
    attention: history('attention'),
    mlp: history('mlp'),
  };
}
