import { stat } from 'node:fs/promises';
import type { Batch } from '../data/loader.js';
import { ValueError } from '../errors.js';
import { addExperts, saveNewExperts } from '../experts/adapter.js';
import { compareOutputs, type OutputChange } from '../experts/compare.js';
import { extendExperts } from '../experts/extend.js';
import { pruneExperts, type PruneAmount, type PruneResult } from '../experts/prune.js';
import { upcycle } from '../experts/upcycle.js';
import { EXPERT_KINDS, expertUsage, type UsageReport } from '../experts/usage.js';
import { countParameters } from '../model/count-parameters.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { bytes, grouped, printJson, printTable } from './command.js';
import type { AdapterFlags, ExtendFlags, PruneFlags, UpcycleFlags } from './experts-command.js';
import { loadExperts, readDomains, readingTokenizer, requireNoCheckpoint, saveNew } from './reading.js';
import type { ReadingFlags } from './reading-flags.js';

type Rows = [string, string][];

interface Loaded {
  checkpoint: string;
  model: ModuleFormerForCausalLM;
  domains: Record<string, Batch[]>;
}

async function load(path: string, flags: ReadingFlags & { out: string }): Promise<Loaded> {
  await requireNoCheckpoint(flags.out);
  const { checkpoint, model } = await loadExperts(path, flags);
  const domains = flags.data
    ? await readDomains(flags, await readingTokenizer(flags, checkpoint, model))
    : {};
  return { checkpoint, model, domains };
}

async function compare(
  before: ModuleFormerForCausalLM,
  after: ModuleFormerForCausalLM,
  domains: Record<string, Batch[]>,
): Promise<Record<string, OutputChange>> {
  const changes: Record<string, OutputChange> = {};
  for (const [name, batches] of Object.entries(domains)) {
    changes[name] = await compareOutputs(before, after, batches);
  }
  return changes;
}

function changeRows(changes: Record<string, OutputChange>): Rows {
  return Object.entries(changes).map(
    ([
      name,
      {
        perplexity: { before, after },
        logits,
        tokens,
      },
    ]) => [
      name,
      `perplexity ${before.toFixed(3)} -> ${after.toFixed(3)} (${percent(after / before - 1)}), ` +
        `logits changed by ${percent(logits)}, ${grouped(tokens)} tokens`,
    ],
  );
}

function percent(part: number): string {
  return `${part < 0 ? '' : '+'}${(100 * part).toPrecision(3)} %`.replace(/^\+(?=0\.00 )/, '');
}

function parameterRows(before: ModuleFormerForCausalLM, after: ModuleFormerForCausalLM): Rows {
  const [a, b] = [before, after].map(({ config }) => countParameters(config)) as [
    ReturnType<typeof countParameters>,
    ReturnType<typeof countParameters>,
  ];
  return [
    ['parameters', `${grouped(a.total)} -> ${grouped(b.total)}`],
    ['active per token', `${grouped(a.active)} -> ${grouped(b.active)}`],
  ];
}

export async function prune(path: string, flags: PruneFlags): Promise<void> {
  const { attention, mlp, criterion, seed, out } = flags;
  if (!attention && !mlp) throw new ValueError('prune: say how many experts go, with --attention or --mlp');
  if (criterion !== 'random' && !flags.data) throw new ValueError(`prune: ${criterion} needs texts (--data)`);
  const { checkpoint, model, domains } = await load(path, flags);
  let usage: UsageReport | undefined;
  if (criterion !== 'random')
    usage = await expertUsage(model, domains, { outputMass: criterion === 'outputMass' });
  const scoped = (amount: PruneAmount | undefined): PruneAmount | undefined =>
    amount && 'fraction' in amount ? { ...amount, scope: flags.scope } : amount;
  const options = { criterion, attention: scoped(attention), mlp: scoped(mlp), usage, seed };
  const { model: pruned, ...result } = pruneExperts(model, options);
  const changes = await compare(model, pruned, domains);
  await saveNew(pruned, out, flags.tokenizer ?? checkpoint);
  if (flags.json) {
    printJson({ checkpoint, out, criterion, ...result, changes });
    return;
  }
  printTable([
    ...removedRows(result),
    ...parameterRows(model, pruned),
    ['saved', `${bytes(result.bytesSaved)} of ${model.dtype}`],
    ...changeRows(changes),
    ['checkpoint', out],
  ]);
}

function removedRows({ kept, removed }: Omit<PruneResult, 'model'>): Rows {
  return removed.flatMap((block, n) =>
    EXPERT_KINDS.map((kind): [string, string] => [
      `block ${n} ${kind}`,
      block[kind].length === 0
        ? `all ${kept[n]?.[kind].length} stay`
        : `${kept[n]?.[kind].length} stay, gone: ${block[kind].join(' ')}`,
    ]),
  );
}

export async function extend(path: string, flags: ExtendFlags): Promise<void> {
  const { attention, mlp, gating, init, outputScale, noise, seed } = flags;
  if (init === 'copy' && !flags.data) throw new ValueError('extend: copies need texts (--data)');
  const { checkpoint, model, domains } = await load(path, flags);
  const usage = init === 'copy' ? await expertUsage(model, domains) : undefined;
  const extended = extendExperts(model, { attention, mlp, gating, init, usage, outputScale, noise, seed });
  await finish(flags, { checkpoint, model, domains }, extended);
}

export async function upcycleCheckpoint(path: string, flags: UpcycleFlags): Promise<void> {
  const { attExperts, kAtt, mlpExperts, kMlp, noise, seed } = flags;
  const loaded = await load(path, flags);
  const sparse = upcycle(loaded.model, {
    attention: { experts: attExperts, k: kAtt },
    mlp: { experts: mlpExperts, k: kMlp },
    noise,
    seed,
  });
  await finish(flags, loaded, sparse);
}

/** Measures, saves and tells. */
async function finish(
  { out, json, tokenizer }: ReadingFlags & { out: string },
  { checkpoint, model, domains }: Loaded,
  made: ModuleFormerForCausalLM,
): Promise<void> {
  const changes = await compare(model, made, domains);
  await saveNew(made, out, tokenizer ?? checkpoint);
  const { attentionExperts, mlpExperts } = made.config;
  if (json)
    printJson({
      checkpoint,
      out,
      attentionExperts,
      mlpExperts,
      parameters: countParameters(made.config),
      changes,
    });
  else printTable([...parameterRows(model, made), ...changeRows(changes), ['checkpoint', out]]);
}

export async function saveAdapter(path: string, { base, out, dtype }: AdapterFlags): Promise<void> {
  const [{ model }, { model: old }] = [await loadWith(path, dtype), await loadWith(base, dtype)];
  await saveNewExperts(model, old, out);
  printTable([
    ['new experts', out],
    ['size', bytes((await stat(out)).size)],
  ]);
}

export async function addAdapters(
  path: string,
  files: readonly string[],
  { out, dtype }: Omit<AdapterFlags, 'base'>,
): Promise<void> {
  await requireNoCheckpoint(out);
  const { checkpoint, model: base } = await loadWith(path, dtype);
  const model = await addExperts(base, files);
  await saveNew(model, out, checkpoint);
  printTable([...parameterRows(base, model), ['checkpoint', out]]);
}

function loadWith(path: string, dtype: AdapterFlags['dtype']): ReturnType<typeof loadExperts> {
  return loadExperts(path, dtype === undefined ? {} : { dtype });
}
