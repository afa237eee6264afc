import { createHash } from 'node:crypto';
import { copyInto, narrow, noGrad } from '../autograd/index.js';
import { CheckpointError, ValueError } from '../errors.js';
import { SafetensorsFile, writeSafetensors } from '../io/safetensors.js';
import type { ModuleFormerConfig } from '../model/config.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { loadParameters, tensorToWrite } from '../model/weights.js';
import { scope } from '../scope.js';
import { empty, type Tensor } from '../tensor.js';
import { newExpertPatterns, newRows } from './extend.js';
import { expertCounts, expertParameters, parametersOf, withExperts, type ExpertSources } from './rebuild.js';
import type { ExpertKind } from './usage.js';

/*
 * A file of new experts is a .safetensors file. Of every block and kind that has new experts it holds, under the names
 * that they have in a checkpoint, the rows of the new experts alone:
 *
 *   transformer.h.N.attn.q_proj.experts.weight         [n, D, A]
 *   transformer.h.N.attn.q_proj.output_experts.weight  [n, A, D]
 *   transformer.h.N.attn.q_proj.gate.<rows>            [n, G] or [n, D]
 *   transformer.h.N.mlpf. ...                          likewise, with F for A
 *
 * where <rows> is w_gate.3.weight (mlp), w_gate.0.weight (linear) or expert_centroids (gmm). The metadata hold
 * format = "moduleformer-experts", version = "1", base = the fingerprint of the model they were trained on, and
 * base_dtype = its dtype.
 */
const FORMAT = 'moduleformer-experts';

/** Fields of the config that change the function but not the shape of a parameter. */
const FUNCTION_FIELDS = [
  'activation_function',
  'attend_current',
  'attend_remainder',
  'gate_type',
  'k_att',
  'k_mlp',
  'n_head',
] as const satisfies (keyof ModuleFormerConfig)[];

/** SHA-256 of a model's function: its parameters, bit for bit in its dtype, and what else decides what it computes. */
export async function fingerprint(model: ModuleFormerForCausalLM): Promise<string> {
  const hash = createHash('sha256');
  hash.update(JSON.stringify(FUNCTION_FIELDS.map((field) => [field, model.config[field]])));
  for (const [name, parameter] of model.namedParameters()) {
    const { dtype, shape, chunks } = tensorToWrite(name, parameter);
    hash.update(JSON.stringify([name, dtype, shape]));
    for await (const chunk of chunks()) hash.update(chunk);
  }
  return hash.digest('hex');
}

/**
 * Writes the experts that `model` has beyond those of `base` to a file.
 * @throws ValueError when there are none, or when anything else of the model differs from the base: it would be lost.
 * @throws CheckpointError when the file cannot be written.
 */
export async function saveNewExperts(
  model: ModuleFormerForCausalLM,
  base: ModuleFormerForCausalLM,
  file: string,
): Promise<void> {
  newExpertPatterns(model.config, base.config);
  if (model.dtype !== base.dtype)
    throw new ValueError(`saveNewExperts: the model is ${model.dtype}, its base ${base.dtype}`);
  const trained = parametersOf(model);
  for (const [name, parameter] of base.namedParameters()) {
    if (!(await startsWith(trained.get(name), parameter))) {
      throw new ValueError(
        `saveNewExperts: ${name} is not that of the base: more than new experts was trained, save the whole model`,
      );
    }
  }
  const tensors = newParts(model, base.config).map(({ name, part }) => tensorToWrite(name, part));
  const metadata = { format: FORMAT, version: '1', base: await fingerprint(base), base_dtype: base.dtype };
  await writeSafetensors(file, tensors, metadata);
}

/**
 * A model with the new experts of one or more files behind those of the base, file by file. The base stays as it is.
 * @throws CheckpointError for a file that holds no new experts, is damaged, or was made with another base.
 */
export async function addExperts(
  base: ModuleFormerForCausalLM,
  files: readonly string[],
): Promise<ModuleFormerForCausalLM> {
  if (files.length === 0) throw new ValueError('addExperts: no file was given');
  const print = await fingerprint(base);
  const counts: BlockCounts[] = [];
  for (const file of files) {
    await using source = await SafetensorsFile.open(file);
    requireFit(source, print, base.dtype);
    counts.push(countsIn(source, base.config));
  }
  const sources = baseSources(base.config).map((block, n) => {
    const all = (kind: ExpertKind): ExpertSources => {
      const added = counts.reduce((sum, file) => sum + (file[n]?.[kind] ?? 0), 0);
      return [...block[kind], ...Array<null>(added).fill(null)];
    };
    return { attention: all('attention'), mlp: all('mlp') };
  });
  const model = withExperts(base, sources);
  const used = new Map<string, number>();
  for (const [i, file] of files.entries()) {
    await fillRows(model, base.config, { file, counts: counts[i] as BlockCounts, used });
  }
  return model;
}

/** Numbers of experts by block. */
type BlockCounts = Record<ExpertKind, number>[];

/** Loads a file behind the experts of the base and those of the files before, of which `used` counts the rows. */
async function fillRows(
  model: ModuleFormerForCausalLM,
  base: ModuleFormerConfig,
  { file, counts, used }: { file: string; counts: BlockCounts; used: Map<string, number> },
): Promise<void> {
  const parameters = parametersOf(model);
  const targets = new Map<string, Tensor>();
  for (const { name, kind, block } of expertParameters(base)) {
    const count = counts[block]?.[kind] ?? 0;
    if (count === 0) continue;
    const before = used.get(name) ?? 0;
    used.set(name, before + count);
    const first = (expertCounts(base, kind)[block] ?? 0) + before;
    targets.set(
      name,
      noGrad(() => narrow(parameters.get(name) as Tensor, first, count)),
    );
  }
  await using source = await SafetensorsFile.open(file);
  await loadParameters(targets, source, file);
  for (const rows of targets.values()) rows.dispose();
}

function baseSources(config: ModuleFormerConfig): Record<ExpertKind, number[]>[] {
  const all = (kind: ExpertKind, block: number): number[] => [
    ...Array(expertCounts(config, kind)[block] as number).keys(),
  ];
  return Array.from({ length: config.n_layer }, (_, block) => ({
    attention: all('attention', block),
    mlp: all('mlp', block),
  }));
}

/** The rows of the new experts, in memory of their own. */
function newParts(
  model: ModuleFormerForCausalLM,
  base: ModuleFormerConfig,
): { name: string; part: Tensor }[] {
  const parameters = parametersOf(model);
  return [...expertParameters(model.config)].flatMap(({ name, kind, block }) => {
    const [first, end] = newRows(base, model.config, kind, block);
    if (end === first) return [];
    const part = noGrad(() =>
      scope(() => {
        const rows = narrow(parameters.get(name) as Tensor, first, end - first);
        const copy = empty(rows.shape, rows.dtype, rows.device);
        copyInto(copy, rows);
        return copy;
      }),
    );
    return [{ name, part }];
  });
}

function requireFit({ path, metadata }: SafetensorsFile, print: string, dtype: string): void {
  if (metadata.get('format') !== FORMAT) {
    throw new CheckpointError(
      `${path}: no file of new experts (its format is ${metadata.get('format') ?? 'not said'})`,
    );
  }
  if (metadata.get('version') !== '1') {
    throw new CheckpointError(
      `${path}: version ${metadata.get('version') ?? 'missing'}, this package reads 1`,
    );
  }
  const wanted = metadata.get('base_dtype');
  if (wanted !== dtype) {
    throw new CheckpointError(
      `${path}: made for a base in ${wanted ?? 'an unknown dtype'}, this one is loaded in ${dtype}`,
    );
  }
  if (metadata.get('base') !== print) {
    throw new CheckpointError(
      `${path}: made with another base model (${metadata.get('base')?.slice(0, 12) ?? 'unknown'}..., ` +
        `this one is ${print.slice(0, 12)}...)`,
    );
  }
}

/** How many experts of each kind and block a file holds. Shapes are checked when it is loaded. */
function countsIn(source: SafetensorsFile, config: ModuleFormerConfig): Record<ExpertKind, number>[] {
  const counts = baseSources(config).map(() => ({ attention: 0, mlp: 0 }));
  for (const { name, role, kind, block } of expertParameters(config)) {
    if (role === 'input')
      (counts[block] as Record<ExpertKind, number>)[kind] = source.entries.get(name)?.shape[0] ?? 0;
  }
  if (counts.every(({ attention, mlp }) => attention + mlp === 0))
    throw new CheckpointError(`${source.path}: holds no expert that fits this model`);
  return counts;
}

/** Whether the first rows of a parameter are those of the base, to the bit. */
async function startsWith(parameter: Tensor | undefined, base: Tensor): Promise<boolean> {
  const [rows, ...rest] = base.shape as [number, ...number[]];
  const [own, ...ownRest] = parameter?.shape ?? [];
  if (!parameter || own === undefined || own < rows || ownRest.join() !== rest.join()) return false;
  const first = noGrad(() => narrow(parameter, 0, rows));
  try {
    return Buffer.compare(await first.bytes(), await base.bytes()) === 0;
  } finally {
    first.dispose();
  }
}
