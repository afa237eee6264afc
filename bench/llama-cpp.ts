// llama.cpp beside this package in one run: prefill and decoding of a mixture of experts with as many active bytes.
import { mkdtemp, rm } from 'node:fs/promises';
import { freemem, tmpdir } from 'node:os';
import path from 'node:path';
import { createRandom } from '../lib/data/random.js';
import { noGrad } from '../lib/autograd/engine.js';
import { ModuleFormerConfig } from '../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../lib/model/moduleformer.js';
import { presetConfig } from '../lib/model/presets.js';
import { quantize } from '../lib/model/quantize.js';
import { native } from '../lib/native/load.js';
import { scope } from '../lib/scope.js';
import type { Tensor } from '../lib/tensor.js';
import { ggufBytes, writeRandomGguf, type GgufTensor, type GgufType, type GgufValue } from './peers/gguf.js';
import { loadLlama, type Llama } from './peers/node-llama-cpp.js';
import { mean, measurePeak, median, type Section } from './support/measure.js';

const PROMPT = 512;
const DECODED = 24;
const ROUNDS = 5;
const K = 2;
const E = 32;

interface Speeds {
  /** Bytes per second that can be read, measured just before decoding. */
  bandwidth: number;
  /** Tokens per second of reading a prompt of PROMPT tokens, and of decoding after it, batch 1. */
  prefill: number;
  decode: number;
}

/** Something that reads a prompt, then continues it. */
interface Contestant {
  activeBytes: number;
  measure(prompt: readonly number[]): Promise<Speeds>;
  dispose(): Promise<void>;
}

const preset = presetConfig('MoLM-350M-4B');
const { n_embd: D, ffd_hidden: F, vocab_size: V } = preset;
/** MLPs of OLMoE have three matrices, ours two; in whole blocks of 32. */
const OLMOE_F = 32 * Math.ceil((2 * F) / 3 / 32);

/** The tensors of OLMoE with MoLM-350M-4B's width; `active`: the part of each that one token reads. */
function olmoe(blocks: number, type: GgufType): (GgufTensor & { active: number })[] {
  const matrix = (name: string, shape: readonly number[], active = 1): GgufTensor & { active: number } => ({
    name: `${name}.weight`,
    shape,
    type,
    active,
  });
  const norm = (name: string) => ({ ...matrix(name, [D]), type: 'f32' as const });
  return [
    matrix('token_embd', [D, V], 1 / V),
    norm('output_norm'),
    matrix('output', [D, V]),
    ...Array.from({ length: blocks }, (_, block) => `blk.${block}`).flatMap((name) => [
      ...['attn_norm', 'attn_q_norm', 'attn_k_norm', 'ffn_norm'].map((each) => norm(`${name}.${each}`)),
      ...['attn_q', 'attn_k', 'attn_v', 'attn_output'].map((each) => matrix(`${name}.${each}`, [D, D])),
      { ...matrix(`${name}.ffn_gate_inp`, [D, E]), type: 'f32' as const },
      matrix(`${name}.ffn_gate_exps`, [D, OLMOE_F, E], K / E),
      matrix(`${name}.ffn_up_exps`, [D, OLMOE_F, E], K / E),
      matrix(`${name}.ffn_down_exps`, [OLMOE_F, D, E], K / E),
    ]),
  ];
}

/** The 256 characters that stand for bytes in GPT-2's vocabulary, then made-up words, then the end of a text. */
function vocabulary(): string[] {
  const printable = (byte: number): boolean =>
    (byte > 32 && byte < 127) || (byte > 160 && byte < 256 && byte !== 173);
  let next = 256;
  const bytes = Array.from({ length: 256 }, (_, byte) =>
    String.fromCodePoint(printable(byte) ? byte : next++),
  );
  return [...bytes, ...Array.from({ length: V - 257 }, (_, i) => `word${i}`), '<|endoftext|>'];
}

function metadata(blocks: number): Record<string, GgufValue> {
  return {
    'general.architecture': 'olmoe',
    'olmoe.block_count': { u32: blocks },
    'olmoe.context_length': { u32: 2048 },
    'olmoe.embedding_length': { u32: D },
    'olmoe.feed_forward_length': { u32: OLMOE_F },
    'olmoe.attention.head_count': { u32: 16 },
    'olmoe.attention.head_count_kv': { u32: 16 },
    'olmoe.attention.layer_norm_rms_epsilon': { f32: 1e-5 },
    'olmoe.rope.freq_base': { f32: 10_000 },
    'olmoe.expert_count': { u32: E },
    'olmoe.expert_used_count': { u32: K },
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'gpt-2',
    'tokenizer.ggml.tokens': vocabulary(),
    'tokenizer.ggml.token_type': new Int32Array(V).fill(1).fill(3, V - 1), // 3: control
    'tokenizer.ggml.merges': ['w o'],
    'tokenizer.ggml.bos_token_id': { u32: V - 1 },
    'tokenizer.ggml.eos_token_id': { u32: V - 1 },
  };
}

async function theirs(llama: Llama, dir: string, blocks: number, type: GgufType): Promise<Contestant> {
  const tensors = olmoe(blocks, type);
  const modelPath = path.join(dir, `${type}.gguf`);
  await writeRandomGguf(modelPath, metadata(blocks), tensors);
  const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
  const context = await model.createContext({
    contextSize: 1024,
    batchSize: PROMPT,
    threads: native.numThreads(),
  });
  const sequence = context.getSequence();
  return {
    dispose: () => model.dispose(),
    activeBytes: tensors.reduce((total, tensor) => total + tensor.active * ggufBytes(tensor), 0),
    async measure(prompt) {
      await sequence.clearHistory();
      const start = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens([...prompt]);
      const prefill = (1000 * prompt.length) / (performance.now() - start);
      const bandwidth = measurePeak('read');
      return {
        bandwidth,
        prefill,
        decode: await tokensPerSecond(sequence.evaluate([1], { temperature: 0 })),
      };
    },
  };
}

function ours(model: ModuleFormerForCausalLM, weights: 'bf16' | 'i8'): Contestant {
  const { n_layer, att_hidden: A, gating_size: G } = model.config;
  const bytesOf = weights === 'bf16' ? 2 : 1 + 4 / 64;
  const routers = 2 * (2 * G * D + G * (16 + E));
  return {
    dispose: () => Promise.resolve(), // the model is quantised next
    activeBytes: n_layer * (bytesOf * 2 * D * K * (A + F) + routers) + bytesOf * V * D,
    async measure(prompt) {
      const start = performance.now();
      const logits = scope(() =>
        noGrad(() => model.forward({ inputIds: [[...prompt]], lastLogitsOnly: true }).logits as Tensor),
      );
      await logits.data();
      const prefill = (1000 * prompt.length) / (performance.now() - start);
      logits.dispose();
      const bandwidth = measurePeak('read');
      const stream = model.stream({
        inputIds: [[...prompt]],
        maxNewTokens: DECODED + 1,
        temperature: 0,
        stopTokens: [],
      });
      return { bandwidth, prefill, decode: await tokensPerSecond(stream) };
    },
  };
}

/** From the mean time between tokens, but for those before the third. */
async function tokensPerSecond(tokens: AsyncIterable<unknown>): Promise<number> {
  const seconds: number[] = [];
  let last = performance.now();
  for await (const token of tokens) {
    const now = performance.now();
    if (token !== undefined) seconds.push((now - last) / 1000);
    last = now;
    if (seconds.length > DECODED) break;
  }
  return 1 / mean(seconds.slice(2));
}

/** Of the read bandwidth, what decoding takes for weights. */
function shareOf({ activeBytes }: Contestant, speeds: readonly Speeds[]): number {
  const share = median(speeds.map(({ decode, bandwidth }) => (activeBytes * decode) / bandwidth));
  return Number(share.toFixed(2));
}

async function rounds(contestants: readonly [Contestant, Contestant]): Promise<[Speeds[], Speeds[]]> {
  const random = createRandom(7);
  const measured: [Speeds[], Speeds[]] = [[], []];
  for (let round = 0; round <= ROUNDS; round++) {
    const prompt = Array.from({ length: PROMPT }, () => Math.floor(random.next() * (V - 1)));
    for (const [i, contestant] of contestants.entries()) {
      const speeds = await contestant.measure(prompt);
      if (round > 0) (measured[i] as Speeds[]).push(speeds);
    }
  }
  return measured;
}

/** Both models lie in memory at once, so that they can be measured in turn. */
function blocksThatFit(): number {
  const bytesPerBlock = 2 * D * (2 * (16 * preset.att_hidden + E * F) + 4 * D + 3 * E * OLMOE_F);
  return [24, 12, 6, 3].find((blocks) => blocks * bytesPerBlock < 0.8 * freemem()) ?? 2;
}

/** MoLM-350M-4B's shape against llama.cpp with OLMoE's, random weights, in bf16 and 8 bits. */
export async function run(): Promise<Section> {
  const llama = await loadLlama(native.numThreads());
  const blocks = Number(process.env.BENCH_BLOCKS ?? blocksThatFit());
  const config = new ModuleFormerConfig({ ...preset.toJSON(), n_layer: blocks });
  const model = new ModuleFormerForCausalLM(config, { dtype: 'bf16' });
  const rows: Section['rows'] = [];
  for (const [weights, type] of [
    ['bf16', 'bf16'],
    ['i8', 'q8_0'],
  ] as const) {
    if (weights === 'i8') quantize(model, { groupSize: 64 });
    const dir = await mkdtemp(path.join(tmpdir(), 'moduleformer-bench-'));
    try {
      const contestants = [ours(model, weights), await theirs(llama, dir, blocks, type)] as const;
      const [mine, other] = await rounds(contestants);
      await contestants[1].dispose();
      for (const phase of ['prefill', 'decode'] as const) {
        const figures = (speeds: Speeds[]): number => Number(median(speeds.map((s) => s[phase])).toFixed(1));
        const ratio = median(mine.map((speeds, i) => speeds[phase] / (other[i] as Speeds)[phase]));
        rows.push({
          weights: `${weights} / ${type}`,
          phase,
          'ours, tokens/s': figures(mine),
          'llama.cpp, tokens/s': figures(other),
          'times as fast': Number(ratio.toFixed(2)),
          ...(phase === 'decode' && {
            'share of read bandwidth, ours': shareOf(contestants[0], mine),
            'share of read bandwidth, llama.cpp': shareOf(contestants[1], other),
          }),
          'active MB, ours': Math.round(contestants[0].activeBytes / 1e6),
          'active MB, llama.cpp': Math.round(contestants[1].activeBytes / 1e6),
        });
      }
    } finally {
      await rm(dir, { recursive: true });
    }
  }
  model.dispose();
  return { name: `llama-cpp: ${llama.version}, ${blocks} blocks, random weights, prompt of ${PROMPT}`, rows };
}
