import { createRandom } from '../lib/data/random.js';
import type { CausalLM, CausalLMConfig, ForwardInputs } from '../lib/model/causal-lm.js';
import { ModuleFormerConfig } from '../lib/model/config.js';
import { countParameters } from '../lib/model/count-parameters.js';
import { DenseForCausalLM } from '../lib/model/dense.js';
import { DenseConfig } from '../lib/model/dense-config.js';
import { KeyValueCache } from '../lib/model/key-value-cache.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { presetConfig } from '../lib/model/presets.js';
import { noGrad } from '../lib/autograd/engine.js';
import { RoutingPlan } from '../lib/autograd/routing_plan.js';
import { native } from '../lib/native/load.js';
import { scope } from '../lib/scope.js';
import { tensor, type Tensor } from '../lib/tensor.js';
import { benchDevice } from './support/device.js';
import { drawExperts } from './support/routing.js';
import { mean, measurePeak, median, type Section } from './support/measure.js';

/** Blocks of every model: all 24 where memory permits (MoLM-350M-4B in bf16 has 8.4 GB). */
const BLOCKS = Number(process.env.BENCH_BLOCKS ?? 24);
const PROMPT = 512;
const BATCH = 8;
const DECODED = 18;
const ROUNDS = 5;

type Model = CausalLM<CausalLMConfig>;

interface Figures {
  latency: number;
  prefill: number;
  decode: number;
  /** Bytes of weights that decoding reads in a second, to the read bandwidth measured just before. */
  share: number;
  memory: number;
}

/** Ratio that is wanted of MoLM's figure to the dense model's; for latency and memory, dense to MoLM. */
const TARGETS: Record<'Pythia-410M' | 'Pythia-1.4B', Omit<Figures, 'memory' | 'share'>> = {
  'Pythia-410M': { latency: 0.65, prefill: 0.8, decode: 1 },
  'Pythia-1.4B': { latency: 1.85, prefill: 2, decode: 3 },
};

function prompts(B: number, V: number): number[][] {
  const random = createRandom(3);
  return Array.from({ length: B }, () => Array.from({ length: PROMPT }, () => Math.floor(random.next() * V)));
}

/** Experts for N tokens, to be imposed on a pass: (e + 1)^-exponent, another draw for each router. */
type Routing = (N: number) => NonNullable<ForwardInputs['routing']>;

function routingOf(config: ModuleFormerConfig, exponent: number): Routing {
  const { k_att, k_mlp, n_layer, attentionExperts, mlpExperts } = config;
  const drawn = new Map<string, Int32Array>();
  const plan = (N: number, E: number, K: number, seed: number): RoutingPlan => {
    const key = `${N} ${seed}`;
    const experts = drawn.get(key) ?? drawExperts({ N, E, K, exponent, seed });
    drawn.set(key, experts);
    const given = tensor(experts, { shape: [N, K], dtype: 'i32', device: benchDevice });
    return new RoutingPlan(given, given, E);
  };
  return (N) =>
    Array.from({ length: n_layer }, (_, layer) => ({
      attention: plan(N, attentionExperts[layer] as number, k_att, 2 * layer),
      mlp: plan(N, mlpExperts[layer] as number, k_mlp, 2 * layer + 1),
    }));
}

/** Seconds until the logits of the last position are there, and the keys and values in a cache. */
async function secondsOfPrefill(model: Model, B: number, routing: Routing | null): Promise<number> {
  const inputIds = prompts(B, model.config.vocab_size);
  const cache = new KeyValueCache(PROMPT);
  const start = performance.now();
  const logits = scope(() =>
    noGrad(() => {
      const imposed = routing ? { routing: routing(B * PROMPT) } : {};
      return model.forward({ inputIds, cache, lastLogitsOnly: true, ...imposed }).logits as Tensor;
    }),
  );
  await logits.data();
  const seconds = (performance.now() - start) / 1000;
  logits.dispose();
  cache.dispose();
  return seconds;
}

/**
 * Mean seconds a token, after a prompt of 32; the first two are those of the prompt and of recording a step. (No median:
 * a step is computed while the last one's token is handled, so that tokens may come in pairs.)
 */
async function secondsOfToken(model: Model): Promise<number> {
  const inputIds = prompts(1, model.config.vocab_size).map((row) => row.slice(0, 32));
  const seconds: number[] = [];
  let last = performance.now();
  const options = { inputIds, maxNewTokens: DECODED, temperature: 0, stopTokens: [] };
  for await (const token of model.stream(options)) {
    const now = performance.now();
    if (token >= 0) seconds.push((now - last) / 1000);
    last = now;
  }
  return mean(seconds.slice(2));
}

/** Of the weights that a token reads, in bf16. */
const activeBytes = (config: Contestant['config']): number => 2 * countParameters(config).active;

async function measure({ model, config, routing, weights }: Contestant): Promise<Figures> {
  native.resetPeakMemory();
  const others = native.memoryStats().live - weights;
  const latency = await secondsOfPrefill(model, 1, routing);
  const batch = await secondsOfPrefill(model, BATCH, routing);
  const memory = native.memoryStats().peak - others;
  const bandwidth = measurePeak('read');
  const decode = 1 / (await secondsOfToken(model));
  const share = (activeBytes(config) * decode) / bandwidth;
  return { latency, prefill: (BATCH * PROMPT) / batch, memory, decode, share };
}

function rowOf(name: string, config: ModuleFormerConfig | DenseConfig, figures: Figures): Section['rows'][0] {
  const { total, active } = countParameters(config);
  return {
    model: name,
    blocks: config.n_layer,
    'parameters, millions': Math.round(total / 1e6),
    'active, millions': Math.round(active / 1e6),
    'latency of 512 tokens, ms': Math.round(1e3 * figures.latency),
    [`prefill of ${BATCH} x 512, tokens/s`]: Math.round(figures.prefill),
    'decode, tokens/s': Number(figures.decode.toFixed(1)),
    'share of read bandwidth': Number(figures.share.toFixed(2)),
    'peak memory MB': Math.round(figures.memory / 1e6),
  };
}

/** Medians of the rounds' ratios: what slows the machine for a while slows both. */
function ratioRow(
  sparse: Contestant,
  dense: DenseContestant,
  ours: readonly Figures[],
  theirs: readonly Figures[],
): Section['rows'][0] {
  const ratio = (of: (a: Figures, b: Figures) => number): number =>
    median(ours.map((figures, round) => of(figures, theirs[round] as Figures)));
  const wanted = TARGETS[dense.name];
  const cell = (value: number, target: number): string =>
    `${value.toFixed(2)} (${value >= target ? 'met' : 'missed'}: ${target})`;
  return {
    model: `${sparse.name} to ${dense.name}`,
    'ratio of latency': cell(
      ratio((a, b) => b.latency / a.latency),
      wanted.latency,
    ),
    'ratio of prefill': cell(
      ratio((a, b) => a.prefill / b.prefill),
      wanted.prefill,
    ),
    'ratio of decode': cell(
      ratio((a, b) => a.decode / b.decode),
      wanted.decode,
    ),
    'ratio of decode if a byte costs the same': Number(
      (activeBytes(dense.config) / activeBytes(sparse.config)).toFixed(2),
    ),
    'ratio of memory': Number(ratio((a, b) => b.memory / a.memory).toFixed(2)),
  };
}

interface Contestant {
  name: string;
  model: Model;
  config: ModuleFormerConfig | DenseConfig;
  routing: Routing | null;
  /** Bytes of the parameters. */
  weights: number;
}

type DenseContestant = Contestant & { name: keyof typeof TARGETS };

function denseContestant(name: keyof typeof TARGETS): DenseContestant {
  const config = new DenseConfig({ ...presetConfig(name).toJSON(), n_layer: BLOCKS });
  const before = native.memoryStats().live;
  const model = new DenseForCausalLM(config, { dtype: 'bf16', device: benchDevice, seed: 1 });
  return { name, model, config, routing: null, weights: native.memoryStats().live - before };
}

/** The same model twice, under both loads. */
function sparseContestants(): Contestant[] {
  const config = new ModuleFormerConfig({ ...presetConfig('MoLM-350M-4B').toJSON(), n_layer: BLOCKS });
  const before = native.memoryStats().live;
  const model = new ModuleFormerForCausalLM(config, { dtype: 'bf16', device: benchDevice, seed: 1 });
  const weights = native.memoryStats().live - before;
  return [
    { name: 'MoLM-350M-4B, equal loads', model, config, routing: routingOf(config, 0), weights },
    { name: 'MoLM-350M-4B, skewed loads', model, config, routing: routingOf(config, 1), weights },
  ];
}

function medians(rounds: readonly Figures[]): Figures {
  const of = (name: keyof Figures): number => median(rounds.map((figures) => figures[name]));
  return {
    latency: of('latency'),
    prefill: of('prefill'),
    decode: of('decode'),
    share: of('share'),
    memory: of('memory'),
  };
}

/**
 * MoLM-350M-4B against dense models of Pythia's shapes on the same kernels, bf16, random weights: the table of
 * arXiv 2306.04640. Routing of MoLM: its own in decoding (random weights: nearly equal loads), equal and skewed loads
 * imposed on prompts. All models are in memory and are measured in turn, round after round.
 */
export async function run(): Promise<Section> {
  const names = Object.keys(TARGETS) as (keyof typeof TARGETS)[];
  const dense = names.map(denseContestant);
  const contestants: Contestant[] = [...dense, ...sparseContestants()];
  const rounds = new Map(contestants.map(({ name }): [string, Figures[]] => [name, []]));
  for (const { model, routing } of contestants) await secondsOfPrefill(model, 1, routing);
  for (let round = 0; round < ROUNDS; round++) {
    for (const contestant of contestants) rounds.get(contestant.name)?.push(await measure(contestant));
  }
  for (const { model } of contestants) model.dispose();
  native.trimMemory();

  const figuresOf = (name: string): Figures[] => rounds.get(name) ?? [];
  const rows = contestants.flatMap((contestant) => {
    const figures = figuresOf(contestant.name);
    const ratios = dense.map((other) => ratioRow(contestant, other, figures, figuresOf(other.name)));
    return [
      rowOf(contestant.name, contestant.config, medians(figures)),
      ...(contestant.routing ? ratios : []),
    ];
  });
  return { name: 'dense: MoLM-350M-4B against dense models, bf16', rows };
}
