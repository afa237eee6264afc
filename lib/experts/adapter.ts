import { createHash } from 'node:crypto';
import { copyInto, narrow, noGrad } from '../autograd/index.js';
import { CheckpointError, ValueError } from '../errors.js';
import { SafetensorsFile, writeSafetensors } from '../io/safetensors.js';
import type { ModuleFormerConfig } from '../model/config.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { loadParameters, tensorToWrite } from '../model/weights.js';
import { scope } from '../scope.js';
import { empty, type Tensor } from '../tensor.js';
import { newExpertPatterns } from './extend.js';
import {
  expertCounts,
  expertParameters,
  gatingParameterNames,
  parametersOf,
  placeColumns,
  withExperts,
  type ExpertSources,
} from './rebuild.js';
import type { ExpertKind } from './usage.js';

/*
 * A file of new experts is a .safetensors file. Of every block and kind that has new experts it holds, under the names
 * that they have in a checkpoint, the rows of the new experts alone:
 *
 *   transformer.h.N.attn.q_proj.experts.weight         [n, D, A]
 *   transformer.h.N.attn.q_proj.output_experts.weight  [n, A, D]
 *   transformer.h.N.attn.q_proj.gate.<rows>            [n, G] or [n, D]; [n, G + g] with g new hidden units
 *   transformer.h.N.attn.q_proj.gate.w_gate.0.weight   [g, D], with new hidden units alone
 *   transformer.h.N.attn.q_proj.gate.w_gate.0.bias     [g]
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
    if (!(await holds(trained.get(name), parameter))) {
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
  const contents: Content[] = [];
  for (const file of files) {
    await using source = await SafetensorsFile.open(file);
    requireFit(source, print, base.dtype);
    contents.push(contentOf(source, base.config));
  }
  const sources = baseSources(base.config).map((block, n) => {
    const all = (kind: ExpertKind): ExpertSources => {
      const added = contents.reduce((sum, { counts }) => sum + (counts[n]?.[kind] ?? 0), 0);
      return [...block[kind], ...Array<null>(added).fill(null)];
    };
    return { attention: all('attention'), mlp: all('mlp') };
  });
  const gating = contents.reduce((sum, each) => sum + each.gating, 0);
  const changes = { gating_size: base.config.gating_size + gating };
  const model = withExperts(base, sources, { changes });
  const used = { rows: new Map<string, number>(), gating: 0 };
  for (const [i, file] of files.entries()) {
    const content = contents[i] as Content;
    await fillRows(model, base.config, { file, content, used });
    used.gating += content.gating;
  }
  return model;
}

/** What a file holds. */
interface Content {
  /** New experts by block. */
  counts: Record<ExpertKind, number>[];
  /** New hidden units of each router. */
  gating: number;
}

/** Loads a file behind the experts of the base and those of the files before, whose rows and hidden units are `used`. */
async function fillRows(
  model: ModuleFormerForCausalLM,
  base: ModuleFormerConfig,
  {
    file,
    content: { counts, gating },
    used,
  }: { file: string; content: Content; used: { rows: Map<string, number>; gating: number } },
): Promise<void> {
  const parameters = parametersOf(model);
  const targets = new Map<string, Tensor>();
  const finish: (() => void)[] = [];
  const { gating_size: width } = base;
  const rowsOf = (name: string, first: number, count: number): Tensor =>
    noGrad(() => narrow(parameters.get(name) as Tensor, first, count));
  for (const { name, role, kind, block } of expertParameters(base)) {
    const count = counts[block]?.[kind] ?? 0;
    if (count === 0) continue;
    const before = used.rows.get(name) ?? 0;
    used.rows.set(name, before + count);
    const rows = rowsOf(name, (expertCounts(base, kind)[block] ?? 0) + before, count);
    if (role !== 'router' || model.config.gating_size === width) {
      targets.set(name, rows);
      continue;
    }
    // The hidden units of the file are behind those of the files before, and so are the columns that read them.
    const own = empty([count, width + gating], rows.dtype, rows.device);
    targets.set(name, own);
    finish.push(() => {
      noGrad(() => {
        scope(() => {
          copyInto(rows, placeColumns(own, model.config.gating_size, { shared: width, shift: used.gating }));
        });
      });
      rows.dispose();
    });
    if (gating === 0) continue;
    for (const hidden of gatingParameterNames(kind, block))
      targets.set(hidden, rowsOf(hidden, width + used.gating, gating));
  }
  await using source = await SafetensorsFile.open(file);
  await loadParameters(targets, source, file);
  for (const place of finish) place();
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

/** What is new, in memory of its own. */
function newParts(
  model: ModuleFormerForCausalLM,
  base: ModuleFormerConfig,
): { name: string; part: Tensor }[] {
  const parameters = parametersOf(model);
  return newExpertPatterns(model.config, base).map(({ name, rows: [first, end] }) => {
    const part = noGrad(() =>
      scope(() => {
        const rows = narrow(parameters.get(name) as Tensor, first, end - first);
        const copy = empty(rows.shape, rows.dtype, rows.device);
        copyInto(copy, rows);
        return copy;
      }),
    );
    return { name, part };
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

/** Shapes are checked when a file is loaded. */
function contentOf(source: SafetensorsFile, config: ModuleFormerConfig): Content {
  const rowsIn = (name: string): number => source.entries.get(name)?.shape[0] ?? 0;
  const counts = baseSources(config).map(() => ({ attention: 0, mlp: 0 }));
  let gating = 0;
  for (const { name, role, kind, block } of expertParameters(config)) {
    if (role === 'input') (counts[block] as Record<ExpertKind, number>)[kind] = rowsIn(name);
    if (config.gate_type === 'mlp') gating = Math.max(gating, rowsIn(gatingParameterNames(kind, block)[0]));
  }
  if (counts.every(({ attention, mlp }) => attention + mlp === 0))
    throw new CheckpointError(`${source.path}: holds no expert that fits this model`);
  return { counts, gating };
}

/**
 * Whether a parameter is that of the base with something behind it, to the bit: more rows, and more columns that are 0 in
 * the rows of the base.
 */
async function holds(parameter: Tensor | undefined, base: Tensor): Promise<boolean> {
  const [rows, ...rest] = base.shape as [number, ...number[]];
  const [own, ...ownRest] = parameter?.shape ?? [];
  if (!parameter || own === undefined || own < rows || ownRest.length !== rest.length) return false;
  const [width, ownWidth] = [rest[0] ?? 1, ownRest[0] ?? 1];
  const isWider = rest.length === 1 && ownWidth > width;
  if (!isWider && ownRest.join() !== rest.join()) return false;
  const [first, wanted] = noGrad(() => [
    narrow(parameter, 0, rows),
    isWider ? placeColumns(base, ownWidth) : narrow(base, 0, rows),
  ]);
  try {
    return Buffer.compare(await first.bytes(), await wanted.bytes()) === 0;
  } finally {
    for (const each of [first, wanted]) each.dispose();
  }
}
