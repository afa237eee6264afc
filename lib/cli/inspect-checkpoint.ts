import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer } from '../data/tokenizer.js';
import { ShardedCheckpoint } from '../io/sharded-checkpoint.js';
import type { SafetensorsEntry } from '../io/safetensors.js';
import { ModuleFormerConfig } from '../model/config.js';
import { countParameters } from '../model/count-parameters.js';
import type { DenseConfig } from '../model/dense-config.js';
import { readState, STATE_FILE } from '../training/checkpoint-files.js';
import { bytes, grouped, printJson, printTable } from './command.js';
import type { InspectFlags } from './inspect-command.js';
import { readModelConfig, resolveCheckpoint } from './models.js';

/** Prints what a checkpoint holds: sizes, active parameters, dtypes, shapes, and how far its training is. */
export async function inspectCheckpoint(path: string, { json }: InspectFlags): Promise<void> {
  const checkpoint = await resolveCheckpoint(path);
  const config = await readModelConfig(checkpoint);
  await using weights = await ShardedCheckpoint.open(checkpoint);
  const tensors = [...weights.entries].map(([name, entry]) => describeTensor(name, entry));
  const head = weights.entries.has('score.weight') ? 'classification' : 'causal-lm';
  const parameters = countParameters(config, head);
  const dtypes = sumBy(tensors, ({ dtype }) => dtype);
  const tokenizer = await ifPresent(join(checkpoint, 'tokenizer.json'), () => Tokenizer.fromFile(checkpoint));
  const state = await ifPresent(join(checkpoint, STATE_FILE), () => readState(checkpoint));
  const training = state && { step: state.step, tokens: state.tokens, elapsedSeconds: state.elapsedSeconds };
  if (json) {
    const vocabulary = tokenizer && { vocabSize: tokenizer.vocabSize, eosId: tokenizer.eosId };
    printJson({ checkpoint, head, config, parameters, dtypes, tensors, tokenizer: vocabulary, training });
    return;
  }
  printTable([
    ['checkpoint', checkpoint],
    ['kind', `${config.model_type}, ${head === 'classification' ? 'classifier' : 'language model'}`],
    ['parameters', grouped(parameters.total)],
    ['active per token', `${grouped(parameters.active)} (${percent(parameters.active / parameters.total)})`],
    [
      'weights',
      Object.entries(dtypes)
        .map(([dtype, size]) => `${bytes(size)} ${dtype}`)
        .join(', '),
    ],
    ...describeShape(config),
    ['tokenizer', tokenizer ? `${grouped(tokenizer.vocabSize)} ids` : 'none'],
    ...(training
      ? [['trained', `${grouped(training.step)} steps, ${grouped(training.tokens)} tokens`] as const]
      : []),
  ]);
  process.stdout.write('\n');
  printTable(collapse(tensors));
}

interface TensorDescription {
  name: string;
  dtype: string;
  shape: readonly number[];
  bytes: number;
}

function describeTensor(name: string, { dtype, shape, begin, end }: SafetensorsEntry): TensorDescription {
  return { name, dtype, shape, bytes: end - begin };
}

function describeShape(config: ModuleFormerConfig | DenseConfig): (readonly [string, string])[] {
  const { vocab_size, n_embd, n_layer, n_head, ffd_hidden } = config;
  const shape = `${n_layer} blocks of width ${n_embd}, vocabulary ${grouped(vocab_size)}`;
  if (!(config instanceof ModuleFormerConfig)) {
    return [
      ['model', shape],
      ['attention', `${config.attention_type}, ${n_head} heads of ${config.headSize}`],
      ['mlp', `width ${ffd_hidden}`],
    ];
  }
  const { attentionExperts, k_att, mlpExperts, k_mlp, headSize, gate_type } = config;
  const heads = `${n_head} ${n_head === 1 ? 'head' : 'heads'} of ${headSize}`;
  return [
    ['model', shape],
    ['attention', `${k_att} of ${range(attentionExperts)} experts, ${heads}`],
    ['mlp', `${k_mlp} of ${range(mlpExperts)} experts, width ${ffd_hidden}`],
    ['routers', gate_type],
  ];
}

/** 8, or 3 to 8 where blocks differ. */
function range(counts: readonly number[]): string {
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  return least === most ? String(least) : `${least} to ${most}`;
}

/** The tensors by name, with those that every block has as one row. */
function collapse(tensors: readonly TensorDescription[]): [string, string][] {
  const rows = new Map<string, { row: [string, string]; count: number }>();
  for (const { name, dtype, shape } of tensors) {
    const general = name.replace(/\bh\.\d+\./, 'h.*.');
    const key = `${general} ${dtype} ${shape.join()}`;
    const known = rows.get(key);
    if (known) known.count++;
    else rows.set(key, { row: [general, `${dtype} [${shape.join(', ')}]`], count: 1 });
  }
  return [...rows.values()].map(({ row: [name, shape], count }) => [
    name,
    count > 1 ? `${shape} in ${count} blocks` : shape,
  ]);
}

function sumBy(
  tensors: readonly TensorDescription[],
  key: (tensor: TensorDescription) => string,
): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const tensor of tensors) sums[key(tensor)] = (sums[key(tensor)] ?? 0) + tensor.bytes;
  return sums;
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)} %`;
}

/** The result of `read`, or null when there is no such file. */
async function ifPresent<T>(file: string, read: () => Promise<T>): Promise<T | null> {
  try {
    await access(file);
  } catch {
    return null;
  }
  return read();
}
