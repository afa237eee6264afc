import { Writable } from 'node:stream';
import cliProgress from 'cli-progress';

import { ValueError } from '../errors.js';
import { meanBalance, meanEntropy, type MetricsRecord } from './metrics.js';

export interface ProgressOptions {
  /** Steps of the whole run. */
  total: number;
  /** Steps done before this process started, default 0. */
  startStep?: number;
  /** Where to show it, default standard output: a bar on a terminal, else a plain line now and then. */
  stream?: NodeJS.WritableStream;
  /** Show nothing at all, default false. */
  silent?: boolean;
  /** Seconds between two plain lines, default 5. */
  intervalSeconds?: number;
}

/** What a step tells the progress display. */
export type ProgressUpdate = Pick<
  MetricsRecord,
  'step' | 'loss' | 'tokensPerSecond' | 'elapsedSeconds' | 'expertLoad' | 'routerEntropy'
>;

const LOSS_DECAY = 0.95;

/** Whole seconds as `1h 02m`, `3m 20s` or `12s`; `?` when unknown. */
export function formatDuration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?';
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  const pad = (value: number): string => String(value).padStart(2, '0');
  if (hours > 0) return `${hours}h ${pad(minutes)}m`;
  return minutes > 0 ? `${minutes}m ${pad(whole % 60)}s` : `${whole}s`;
}

function formatRate(perSecond: number): string {
  if (perSecond >= 10_000) return `${(perSecond / 1000).toFixed(1)}k`;
  return perSecond >= 100 ? perSecond.toFixed(0) : perSecond.toPrecision(3);
}

/**
 * The stream that is written to in the end, made harmless: when it is closed (a pipe to `head`, a terminal that went
 * away), what is written is dropped, nothing is thrown and no error event is left without a listener.
 */
class GuardedStream extends Writable {
  readonly #target: NodeJS.WritableStream & { isTTY?: boolean; columns?: number };
  #broken = false;
  readonly #onError = (): void => {
    this.#broken = true;
  };

  constructor(target: NodeJS.WritableStream) {
    super({ decodeStrings: false });
    this.#target = target;
    target.on('error', this.#onError);
  }

  get isTTY(): boolean {
    return this.#target.isTTY === true;
  }

  get columns(): number {
    return this.#target.columns ?? 80;
  }

  override _write(chunk: string, _encoding: BufferEncoding, done: () => void): void {
    this.#forward(chunk);
    done();
  }

  /** Gives the target back to its owner, once the errors of what was written can no longer come. */
  release(): void {
    const detach = (): void => void setImmediate(() => this.#target.off('error', this.#onError));
    this.#forward('', detach);
    if (this.#broken) detach();
  }

  #forward(chunk: string, done?: () => void): void {
    if (this.#broken || !this.#target.writable) {
      this.#broken = true;
      return;
    }
    try {
      this.#target.write(chunk, done);
    } catch {
      this.#broken = true;
    }
  }
}

/** A bar that lets the process end although it redraws itself on a timer. */
class BackgroundBar extends cliProgress.SingleBar {
  override render(): void {
    super.render();
    (this as unknown as { timer: NodeJS.Timeout }).timer.unref();
  }
}

/**
 * The live display of a run: step, loss, tokens per second, time left and expert balance.
 *
 * The loss is an exponential moving average (decay 0.95, without the bias of its start); a loss that is not finite is
 * shown as it is and stays out of the average. The balance is the mean over all routers of the normalised entropy of
 * their load, `-sum_e f_e log f_e / log E` with f_e the share of routed rows that expert e got: 1 is even, 0 is one
 * expert for everything. The entropies are means over all routers in nats: H(expert), which load concentration lowers, and
 * H(expert | token). The time left goes by the mean time per step since this process started.
 *
 * Showing progress never throws and never ends a run: a stream that is closed is ignored.
 */
export class Progress {
  readonly #total: number;
  readonly #startStep: number;
  readonly #interval: number;
  readonly #stream: GuardedStream | undefined;
  #bar: BackgroundBar | undefined;
  #first: ProgressUpdate | undefined;
  #last: ProgressUpdate | undefined;
  #lossSum = 0;
  #lossWeight = 0;
  #lastLine = -Infinity;
  #printedStep = -1;

  /** Shows the bar, unless it is silent. @throws ValueError for a total, start or interval that is impossible. */
  constructor(options: ProgressOptions) {
    const { total, startStep = 0, stream = process.stdout, silent = false, intervalSeconds = 5 } = options;
    if (!Number.isSafeInteger(total) || total < 0) {
      throw new ValueError(`Progress: total must be a non-negative integer, got ${String(total)}`);
    }
    if (!Number.isSafeInteger(startStep) || startStep < 0) {
      throw new ValueError(`Progress: startStep must be a non-negative integer, got ${String(startStep)}`);
    }
    if (!(intervalSeconds >= 0)) {
      throw new ValueError(`Progress: intervalSeconds must be 0 or more, got ${String(intervalSeconds)}`);
    }
    this.#total = total;
    this.#startStep = startStep;
    this.#interval = intervalSeconds * 1000;
    if (silent) return;
    this.#stream = new GuardedStream(stream);
    if (this.#stream.isTTY) this.#startBar(this.#stream);
  }

  /** Shows a step. */
  update(update: ProgressUpdate): void {
    this.#first ??= update;
    this.#last = update;
    if (Number.isFinite(update.loss)) {
      this.#lossSum = LOSS_DECAY * this.#lossSum + (1 - LOSS_DECAY) * update.loss;
      this.#lossWeight = LOSS_DECAY * this.#lossWeight + (1 - LOSS_DECAY);
    }
    if (this.#bar) this.#bar.update(update.step, { details: this.#details(update) });
    else if (performance.now() - this.#lastLine >= this.#interval) this.#printLine(update);
  }

  /** Prints a line of its own, above the bar if there is one. */
  log(line: string): void {
    this.#stream?.write(this.#bar ? `\r\x1b[K${line}\n` : `${line}\n`);
    this.#bar?.render();
  }

  /** Shows the last step and gives the terminal back. Stopping again does nothing. */
  stop(): void {
    if (this.#bar) {
      this.#bar.stop();
      this.#bar = undefined;
      process.off('exit', this.#onExit).off('SIGINT', this.#onSignal).off('SIGTERM', this.#onSignal);
    } else if (this.#last && this.#last.step !== this.#printedStep) {
      this.#printLine(this.#last);
    }
    this.#last = undefined;
    this.#stream?.release();
  }

  /**
   * `loss 3.4210 | 12.3k tokens/s | 3m 20s left | balance 0.97 | entropy 2.66, 1.12 by token`: the last two only when
   * they are known.
   */
  #details(update: ProgressUpdate): string {
    const loss = Number.isFinite(update.loss) ? this.#lossSum / this.#lossWeight : update.loss;
    const parts = [
      `loss ${Number.isFinite(loss) ? loss.toFixed(4) : loss}`,
      `${formatRate(update.tokensPerSecond)} tokens/s`,
      `${formatDuration(this.#secondsLeft(update))} left`,
    ];
    const balance = meanBalance(update.expertLoad ?? []);
    if (!Number.isNaN(balance)) parts.push(`balance ${balance.toFixed(2)}`);
    const { marginal, conditional } = meanEntropy(update.routerEntropy ?? []);
    if (!Number.isNaN(marginal))
      parts.push(`entropy ${marginal.toFixed(2)}, ${conditional.toFixed(2)} by token`);
    return parts.join(' | ');
  }

  #secondsLeft(update: ProgressUpdate): number {
    const first = this.#first ?? update;
    // A single step has nothing to be compared with; a run from step 0 was at 0 seconds then.
    const origin = first === update && this.#startStep === 0 ? { step: 0, elapsedSeconds: 0 } : first;
    const steps = update.step - origin.step;
    if (update.step >= this.#total) return 0;
    return ((update.elapsedSeconds - origin.elapsedSeconds) / steps) * (this.#total - update.step);
  }

  #printLine(update: ProgressUpdate): void {
    this.#lastLine = performance.now();
    this.#printedStep = update.step;
    const percentage = this.#total === 0 ? 100 : Math.floor((100 * update.step) / this.#total);
    this.#stream?.write(`step ${update.step}/${this.#total} ${percentage}% | ${this.#details(update)}\n`);
  }

  #startBar(stream: GuardedStream): void {
    process.on('exit', this.#onExit).on('SIGINT', this.#onSignal).on('SIGTERM', this.#onSignal);
    this.#bar = new BackgroundBar(
      {
        format: '{bar} {value}/{total} {percentage}% | {details}',
        barsize: 24,
        hideCursor: true,
        forceRedraw: true,
        stream,
      },
      cliProgress.Presets.shades_classic,
    );
    this.#bar.start(this.#total, this.#startStep, { details: 'starting' });
  }

  readonly #onExit = (): void => this.stop();

  // A listener takes the place of the default, which is to end the process. So when nobody else wants the signal, it
  // is raised again after the terminal has been put right; otherwise those who listen decide, and call stop().
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    if (process.listenerCount(signal) > 1) return;
    this.stop();
    process.kill(process.pid, signal);
  };
}
