/**
 * A checkpoint of the shape of MoLM-350M-4B (random weights, bf16, 8.3 GB, with the buffers that the released files
 * hold) is written, loaded, made to generate and saved again; every parameter's bytes must be the same, and the
 * process must stay below a limit of resident memory, mapped pages included.
 *
 *   npm run bench:molm [-- PRESET]
 *
 * The files (twice 8.3 GB) go to the system's temporary folder, or $TMPDIR, and are removed at the end.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { saveCheckpoint, ShardedCheckpoint } from '../../lib/io/sharded-checkpoint.js';
import type { TensorToWrite } from '../../lib/io/safetensors.js';
import type { ModuleFormerConfig } from '../../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { presetConfig } from '../../lib/model/presets.js';

const LIMIT_BYTES = 12e9;
const MAX_SHARD_BYTES = 5e9;
const CHUNK_BYTES = 8 << 20;
const PROMPTS = [
  [17, 4711, 32000, 8],
  [9, 99, 999, 9999],
];
const NEW_TOKENS = 8;

const preset = process.argv[2] ?? 'MoLM-350M-4B';
const config = presetConfig(preset) as ModuleFormerConfig;
const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;

/** The most resident memory so far, in bytes. */
function peakBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

async function timed<T>(what: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await work();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${what.padEnd(44)} ${seconds.padStart(6)} s   peak RSS ${gigabytes(peakBytes())}`);
  return result;
}

/** Values of N(0, 0.02^2) in bf16, twice as many as a chunk holds: chunks begin at different places in it. */
function randomPool(): Uint8Array {
  const words = new Uint32Array(new Float32Array(CHUNK_BYTES).buffer);
  const floats = new Float32Array(words.buffer);
  let state = 1;
  const uniform = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  for (let i = 0; i < floats.length; i++) {
    floats[i] = 0.02 * Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }
  return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
}

/** The parameters' names and shapes, and the buffers of the attention that released checkpoints hold. */
function tensorsOfCheckpoint(): TensorToWrite[] {
  const pool = randomPool();
  let chunksSoFar = 0;
  const describe = (name: string, dtype: 'BF16' | 'I8', shape: readonly number[]): TensorToWrite => {
    const byteLength = shape.reduce((product, size) => product * size, dtype === 'BF16' ? 2 : 1);
    return {
      name,
      dtype,
      shape,
      byteLength,
      *chunks() {
        for (let start = 0; start < byteLength; start += CHUNK_BYTES) {
          const offset = (chunksSoFar++ * 15_486) % CHUNK_BYTES;
          yield pool.subarray(offset, offset + Math.min(CHUNK_BYTES, byteLength - start));
        }
      },
    };
  };
  using model = new ModuleFormerForCausalLM(config, { dtype: 'bf16', uninitialised: true });
  const parameters = [...model.namedParameters()].map(([name, { shape }]) => describe(name, 'BF16', shape));
  const context = config.block_size + config.history_length;
  const buffers = Array.from({ length: config.n_layer }, (_, layer) => [
    describe(`transformer.h.${layer}.attn.mask`, 'I8', [context, context]),
    describe(`transformer.h.${layer}.attn.cum_weight`, 'BF16', [context, context]),
  ]);
  return [...parameters, ...buffers.flat()];
}

/** Compares every parameter of the model in two checkpoints. Returns how many there are. */
async function compare(model: ModuleFormerForCausalLM, before: string, after: string): Promise<number> {
  await using a = await ShardedCheckpoint.open(before);
  await using b = await ShardedCheckpoint.open(after);
  const names = [...model.namedParameters()].map(([name]) => name);
  if (b.entries.size !== names.length) {
    throw new Error(
      `the saved checkpoint has ${b.entries.size} tensors, the model ${names.length} parameters`,
    );
  }
  const buffers = [new Uint8Array(CHUNK_BYTES), new Uint8Array(CHUNK_BYTES)] as const;
  for (const name of names) {
    const [x, y] = [a.entries.get(name), b.entries.get(name)];
    if (!x || !y || x.dtype !== y.dtype || x.shape.join() !== y.shape.join())
      throw new Error(`${name} differs`);
    for (let start = 0; start < x.end - x.begin; start += CHUNK_BYTES) {
      const parts = buffers.map((buffer) =>
        buffer.subarray(0, Math.min(CHUNK_BYTES, x.end - x.begin - start)),
      );
      const [p, q] = parts as [Uint8Array, Uint8Array];
      await a.readInto(name, p, start);
      await b.readInto(name, q, start);
      if (Buffer.compare(p, q) !== 0)
        throw new Error(`${name} differs within ${p.length} bytes from ${start} on`);
    }
  }
  return names.length;
}

const root = await mkdtemp(join(tmpdir(), 'moduleformer-molm-'));
try {
  const [original, saved] = [join(root, 'original'), join(root, 'saved')];
  await mkdir(original);
  const tensors = tensorsOfCheckpoint();
  const bytes = tensors.reduce((sum, { byteLength }) => sum + byteLength, 0);
  console.log(`${preset}: ${tensors.length} tensors, ${gigabytes(bytes)}, Node ${process.version}`);
  await writeFile(join(original, 'config.json'), JSON.stringify(config));
  await timed('write', () => saveCheckpoint(original, tensors, { maxShardBytes: MAX_SHARD_BYTES }));
  const model = await timed('load', () => ModuleFormerForCausalLM.fromPretrained(original));
  console.log(`loaded as ${model.dtype}`);
  const ids = await timed(`generate ${NEW_TOKENS} tokens for each of ${PROMPTS.length} prompts`, () =>
    model.generate({ inputIds: PROMPTS, maxNewTokens: NEW_TOKENS, temperature: 0, stopTokens: [] }),
  );
  console.log(ids.map((row) => row.join(' ')).join(' | '));
  await timed('save', () => model.savePretrained(saved, { maxShardBytes: MAX_SHARD_BYTES }));
  const count = await timed('compare', () => compare(model, original, saved));
  console.log(`${count} parameters: every byte as it was`);
  const peak = peakBytes();
  console.log(`peak RSS ${gigabytes(peak)}, limit ${gigabytes(LIMIT_BYTES)}`);
  if (peak > LIMIT_BYTES) process.exitCode = 1;
} finally {
  await rm(root, { recursive: true, force: true });
}
