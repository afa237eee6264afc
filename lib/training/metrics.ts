import { appendFileSync, createReadStream } from 'node:fs';
import { mkdir, open, stat, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { StringDecoder } from 'node:string_decoder';
import { z } from 'zod';

import { DataError, ValueError } from '../errors.js';

/** Routed rows that each expert of one block got in a step; any positive scale (rows or shares) will do. */
export interface BlockLoad {
  /** [E attention experts] */
  attention: number[];
  /** [E MLP experts] */
  mlp: number[];
}

/** Entropies of a router's probabilities in nats. */
export interface RouterEntropy {
  /** H(expert), of the mean over tokens: low when the load is concentrated. */
  marginal: number;
  /** H(expert | token), the mean over tokens: low when the router is sure. */
  conditional: number;
}

/** The entropies of one block's routers. */
export interface BlockEntropy {
  /** Of the attention's router. */
  attention: RouterEntropy;
  /** Of the MLP's router. */
  mlp: RouterEntropy;
}

/** One line of `metrics.jsonl`: what a training step measured. */
export interface MetricsRecord {
  /** Optimizer steps done, this one included; strictly increasing within a file. */
  step: number;
  /** Cross-entropy plus weighted auxiliary loss, in nats per token. */
  loss: number;
  /** Next-token cross-entropy in nats per token. */
  crossEntropy: number;
  /** The balancing loss: the unweighted sum over all routers. */
  auxLoss: number;
  /** The unweighted sum over all routers of the entropy of their mean probabilities; absent in dense models. */
  concentrationLoss?: number;
  /** The learning rate of this step. */
  lr: number;
  /** The gradient's norm before clipping. */
  gradNorm: number;
  /** Training tokens seen since the run began. */
  tokens: number;
  /** Training tokens of this step by its seconds. */
  tokensPerSecond: number;
  /** Seconds of training since the run began, resumed parts included. */
  elapsedSeconds: number;
  /** One entry per block. */
  expertLoad?: BlockLoad[];
  /** One entry per block. */
  routerEntropy?: BlockEntropy[];
  /** Present on the steps after which the model was validated. */
  validation?: { loss: number; perplexity: number };
}

// JSON has no NaN and no infinities, and JSON.stringify would turn them into null, which hides what happened.
// They are written as the strings below and read back as the numbers they stand for.
const measured = z.union([
  z.number(),
  z.enum(['NaN', 'Infinity', '-Infinity']).transform((text) => Number(text)),
]);
const load = z.array(z.number().nonnegative());
const entropies = z.object({ marginal: measured, conditional: measured });
const recordSchema = z.object({
  step: z.int().nonnegative(),
  loss: measured,
  crossEntropy: measured,
  auxLoss: measured,
  concentrationLoss: measured.exactOptional(),
  lr: measured,
  gradNorm: measured,
  tokens: z.number().nonnegative(),
  tokensPerSecond: measured,
  elapsedSeconds: z.number().nonnegative(),
  expertLoad: z.array(z.object({ attention: load, mlp: load })).exactOptional(),
  routerEntropy: z.array(z.object({ attention: entropies, mlp: entropies })).exactOptional(),
  validation: z.object({ loss: measured, perplexity: measured }).exactOptional(),
});

function formatRecord(record: MetricsRecord): string {
  const text = JSON.stringify(record, (_key, value: unknown) =>
    typeof value === 'number' && !Number.isFinite(value) ? String(value) : value,
  );
  return `${text}\n`;
}

function parseRecord(line: string, where: string): MetricsRecord {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (error) {
    throw new DataError(`${where}: not a JSON record: ${(error as Error).message}`, { cause: error });
  }
  const parsed = recordSchema.safeParse(json);
  if (!parsed.success) throw new DataError(`${where}: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

interface Line {
  text: string;
  /** Bytes of the file up to the end of this line, its newline included. */
  end: number;
  /** False for a last line without a newline. */
  ended: boolean;
}

/** The lines of the first `size` bytes, so that a file that is still being written can be read. */
async function* readLines(file: string, size: number): AsyncGenerator<Line> {
  if (size === 0) return;
  const decoder = new StringDecoder('utf8');
  let pending = '';
  let end = 0;
  for await (const chunk of createReadStream(file, { end: size - 1 })) {
    const lines = (pending + decoder.write(chunk as Buffer)).split('\n');
    pending = lines.pop() ?? '';
    for (const text of lines) {
      end += Buffer.byteLength(text) + 1;
      yield { text, end, ended: true };
    }
  }
  pending += decoder.end();
  if (pending !== '') yield { text: pending, end: size, ended: false };
}

interface ParsedLine {
  record: MetricsRecord;
  line: Line;
}

/** Every record with its place in the file. A last line without a newline that is no record was torn: it is skipped. */
async function* readRecords(file: string): AsyncGenerator<ParsedLine> {
  let lineNumber = 0;
  let previousStep = -1;
  for await (const line of readLines(file, (await stat(file)).size)) {
    const where = `${file}, line ${++lineNumber}`;
    let record: MetricsRecord;
    try {
      record = parseRecord(line.text, where);
    } catch (error) {
      if (!line.ended) return;
      throw error;
    }
    if (record.step <= previousStep) {
      throw new DataError(`${where}: step ${record.step} does not follow step ${previousStep}`);
    }
    previousStep = record.step;
    yield { record, line };
  }
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === 'ENOENT';
}

/**
 * All records of a `metrics.jsonl`, in order; also of one that is still being written. A last line torn by a crash is
 * skipped; any other bad line, or a missing file, is a DataError that names the file and the line.
 */
export async function readMetrics(file: string): Promise<MetricsRecord[]> {
  const records: MetricsRecord[] = [];
  try {
    for await (const { record } of readRecords(file)) records.push(record);
  } catch (error) {
    if (isMissing(error)) throw new DataError(`${file}: there is no such metrics file`, { cause: error });
    throw error;
  }
  return records;
}

/**
 * Cuts the file back to the records up to `resumedStep`. Steps increase from line to line, so what stays is a prefix,
 * and one ftruncate does it: killed at any point, the file is either as before or repaired.
 */
async function cutBack(file: string, resumedStep: number): Promise<void> {
  let kept: Line | undefined;
  for await (const { record, line } of readRecords(file)) {
    if (record.step > resumedStep) break;
    kept = line;
  }
  await truncate(file, kept?.end ?? 0);
  if (kept?.ended === false) appendFileSync(file, '\n');
}

async function prepareFile(file: string, resumedStep: number | undefined): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  const size = await stat(file).then(
    (found) => found.size,
    (error: unknown) => {
      if (isMissing(error)) return 0;
      throw error;
    },
  );
  if (size === 0) return writeFile(file, '');
  if (resumedStep === undefined) {
    throw new DataError(
      `${file}: holds the metrics of another run; give resumedStep to continue it, 0 to start over`,
    );
  }
  await cutBack(file, resumedStep);
}

/** How metrics are written. */
export interface MetricsWriterOptions {
  /**
   * The step of the checkpoint that the run continues from; later records in the file are dropped, and a torn last
   * line is repaired. Without it the file must be absent or empty.
   */
  resumedStep?: number;
  /** Seconds between flushes, default 5. */
  flushSeconds?: number;
}

/**
 * Appends one JSON line per step. Lines are buffered and reach the file every few seconds, on `flush()`, `close()` and
 * when the process exits; call `flush()` before saving a checkpoint, so that a resumed run finds no gap.
 */
export class MetricsWriter {
  /** The file. */
  readonly path: string;
  #buffer = '';
  #lastStep: number;
  #failure: Error | undefined;
  #closed = false;
  readonly #timer: NodeJS.Timeout;
  readonly #onExit = (): void => this.#tryFlush();

  /** Opens `file`, creating its directory. Whatever is wrong with an existing file is a DataError, and leaves it as it was. */
  static async open(file: string, options: MetricsWriterOptions = {}): Promise<MetricsWriter> {
    const { resumedStep, flushSeconds = 5 } = options;
    if (resumedStep !== undefined && !(Number.isSafeInteger(resumedStep) && resumedStep >= 0)) {
      throw new ValueError(
        `MetricsWriter: resumedStep must be a non-negative integer, got ${String(resumedStep)}`,
      );
    }
    if (!(flushSeconds > 0 && flushSeconds <= 3600)) {
      throw new ValueError(`MetricsWriter: flushSeconds must lie in (0, 3600], got ${String(flushSeconds)}`);
    }
    await prepareFile(file, resumedStep);
    return new MetricsWriter(file, resumedStep ?? -1, flushSeconds);
  }

  private constructor(file: string, lastStep: number, flushSeconds: number) {
    this.path = file;
    this.#lastStep = lastStep;
    this.#timer = setInterval(this.#onExit, flushSeconds * 1000).unref();
    process.on('exit', this.#onExit);
  }

  /** Queues a record. One that is malformed or does not follow the last step is a ValueError; a failed flush is thrown here. */
  write(record: MetricsRecord): void {
    if (this.#closed) throw new ValueError(`MetricsWriter: ${this.path} is closed`);
    if (this.#failure) throw this.#failure;
    if (!Number.isSafeInteger(record.step) || record.step <= this.#lastStep) {
      throw new ValueError(
        `MetricsWriter: step ${String(record.step)} must be an integer above ${this.#lastStep}`,
      );
    }
    const line = formatRecord(record);
    const checked = recordSchema.safeParse(JSON.parse(line));
    if (!checked.success) throw new ValueError(`MetricsWriter: ${z.prettifyError(checked.error)}`);
    this.#lastStep = record.step;
    this.#buffer += line;
  }

  /** Hands everything queued to the operating system. */
  flush(): void {
    this.#tryFlush();
    if (this.#failure) throw this.#failure;
  }

  /** Flushes to the disk and stops; closing again does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    process.off('exit', this.#onExit);
    this.flush();
    const handle = await open(this.path, 'r+');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }

  // A timer's exception would end the process, so a failure waits here for the next call. After one, nothing more is
  // written: how much of the buffer reached the file is unknown, and its tail may be torn.
  #tryFlush(): void {
    if (this.#buffer === '' || this.#failure) return;
    try {
      appendFileSync(this.path, this.#buffer);
      this.#buffer = '';
    } catch (error) {
      this.#failure = new DataError(`${this.path}: cannot write metrics: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

/**
 * How evenly `load` spreads over its experts: its entropy divided by log E, 1 when all get the same, 0 when one gets
 * everything. A single expert counts as balanced (1); a load without rows has no balance (NaN).
 */
export function loadBalance(load: readonly number[]): number {
  const total = load.reduce((sum, rows) => sum + rows, 0);
  if (!(total > 0)) return NaN;
  if (load.length === 1) return 1;
  let entropy = 0;
  for (const rows of load) if (rows > 0) entropy -= (rows / total) * Math.log(rows / total);
  return entropy / Math.log(load.length);
}

/** The mean of `loadBalance` over all routers that routed anything, attention and MLP alike; NaN when none did. */
export function meanBalance(expertLoad: readonly BlockLoad[]): number {
  const balances = expertLoad
    .flatMap((block) => [loadBalance(block.attention), loadBalance(block.mlp)])
    .filter((balance) => !Number.isNaN(balance));
  return balances.reduce((sum, balance) => sum + balance, 0) / balances.length;
}

/** The means of both entropies over all routers; NaN without routers. */
export function meanEntropy(entropies: readonly BlockEntropy[]): RouterEntropy {
  const routers = entropies.flatMap(({ attention, mlp }) => [attention, mlp]);
  const mean = (of: keyof RouterEntropy): number =>
    routers.reduce((sum, router) => sum + router[of], 0) / routers.length;
  return { marginal: mean('marginal'), conditional: mean('conditional') };
}
