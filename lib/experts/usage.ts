import { noGrad, type RoutingPlan } from '../autograd/index.js';
import type { Batch } from '../data/loader.js';
import { DataError, ValueError } from '../errors.js';
import type { CausalLMInputs } from '../model/causal-lm.js';
import type { RouterOutput } from '../model/forward-context.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { scope } from '../scope.js';
import { tensor, Tensor } from '../tensor.js';
import { batchInputs, textMask } from '../training/batch.js';
import { domainInformation } from './information.js';
import { RouterSums, TokenCounter, type RouterNumbers } from './usage-sums.js';

/** The two kinds of experts that a block has. */
export const EXPERT_KINDS = ['attention', 'mlp'] as const;
/** The two kinds of experts in a block. */
export type ExpertKind = (typeof EXPERT_KINDS)[number];

/** What a router did with the tokens of a domain, each list by expert [E]. */
export interface RouterUsage {
  /** How often each expert was chosen. */
  choices: number[];
  /** The sum of its gates where it was chosen. */
  gateMass: number[];
  /** The sum of its probabilities over all tokens, chosen or not. */
  probabilityMass: number[];
  /** The sum of gate times the norm of its output; only when asked for. */
  outputMass?: number[];
  /** H(expert) in nats: the entropy of the mean probabilities. */
  marginalEntropy: number;
  /** H(expert | token) in nats: the mean entropy of a token's probabilities. */
  conditionalEntropy: number;
}

/** What the routers of a block did. */
export type BlockUsage = Record<ExpertKind, RouterUsage>;

/** What the routers did with the texts of a domain. */
export interface DomainUsage {
  /** As it was given. */
  name: string;
  /** Tokens that were counted: all but padding. */
  tokens: number;
  /** One entry per block. */
  blocks: BlockUsage[];
}

/** How often a token sent a row to each expert, by block. */
export interface TokenUsage {
  /** The token's id. */
  id: number;
  /** Times that the token occurred. */
  count: number;
  /** Per block and kind the rows to each expert [E]. */
  blocks: Record<ExpertKind, number[]>[];
}

/** Which experts fire for which domains and tokens. */
export interface UsageReport {
  /** In the order in which they were given. */
  domains: DomainUsage[];
  /** I(expert; domain) in nats, from choices, by block; each domain counts the same. */
  domainInformation: Record<ExpertKind, number>[];
  /** For the ids asked for, over all domains. */
  tokens: TokenUsage[];
}

/** What is counted. */
export interface UsageOptions {
  /** Whether to compute `outputMass`. Default false. */
  outputMass?: boolean;
  /** Ids of tokens to tell the experts of. */
  tokenIds?: readonly number[];
  /** The most tokens of each domain, rounded up to whole batches. Default: all. */
  maxTokens?: number;
  /** Ends counting early, with the signal's reason as the error. */
  signal?: AbortSignal | undefined;
}

/** Batches by the name of their domain. */
export type Domains = Readonly<Record<string, Iterable<Batch> | AsyncIterable<Batch>>>;

/**
 * Which experts the tokens of each domain go to. The model runs without gradients, in evaluation mode, which is
 * restored after; padding is left out, and every token counts once.
 *
 * @throws DataError when a domain has no batch; ValueError without domains.
 */
export async function expertUsage(
  model: ModuleFormerForCausalLM,
  domains: Domains,
  options: UsageOptions = {},
): Promise<UsageReport> {
  const names = Object.keys(domains);
  if (names.length === 0) throw new ValueError('expertUsage: no domain was given, expected at least one');
  const tokens = new TokenCounter(model, options.tokenIds ?? []);
  const wasTraining = model.training;
  model.eval();
  try {
    const found: DomainUsage[] = [];
    for (const name of names) {
      const usage = await domainUsage(model, domains[name] as AsyncIterable<Batch>, tokens, options);
      if (usage.tokens === 0) throw new DataError(`expertUsage: the domain '${name}' has no text`);
      found.push({ name, ...usage });
    }
    const information = (kind: ExpertKind, block: number): number =>
      domainInformation(found.map(({ blocks }) => (blocks[block] as BlockUsage)[kind].choices));
    return {
      domains: found,
      domainInformation: model.config.mlpExperts.map((_, block) => ({
        attention: information('attention', block),
        mlp: information('mlp', block),
      })),
      tokens: tokens.usage,
    };
  } finally {
    model.train(wasTraining);
  }
}

async function domainUsage(
  model: ModuleFormerForCausalLM,
  batches: Iterable<Batch> | AsyncIterable<Batch>,
  tokens: TokenCounter,
  { outputMass = false, maxTokens = Infinity, signal }: UsageOptions,
): Promise<Omit<DomainUsage, 'name'>> {
  const { attentionExperts, mlpExperts } = model.config;
  const sums = attentionExperts.map((E, block) => ({
    attention: new RouterSums(E, outputMass),
    mlp: new RouterSums(mlpExperts[block] as number, outputMass),
  }));
  let count = 0;
  for await (const batch of batches) {
    signal?.throwIfAborted();
    const mask = textMask(batch);
    const kept = mask.reduce((sum, keep) => sum + keep, 0);
    if (kept === 0) continue;
    const wantChoices = outputMass || tokens.isWanted(batch.inputIds);
    const read = await readRouters(model, batch, mask, { outputMass, wantChoices });
    for (const [block, routers] of read.entries()) {
      for (const kind of EXPERT_KINDS) {
        const router = routers[kind];
        sums[block]?.[kind].add(router, kept, mask);
        if (router.choices) tokens.add(batch.inputIds, mask, kind, block, router.choices);
      }
    }
    tokens.count(batch.inputIds, mask);
    count += kept;
    if (count >= maxTokens) break;
  }
  const usage = sums.map(({ attention, mlp }) => ({
    attention: attention.usage(count),
    mlp: mlp.usage(count),
  }));
  return { tokens: count, blocks: usage };
}

async function readRouters(
  model: ModuleFormerForCausalLM,
  batch: Batch,
  mask: Int32Array,
  { outputMass, wantChoices }: { outputMass: boolean; wantChoices: boolean },
): Promise<Record<ExpertKind, RouterNumbers>[]> {
  const wanted = noGrad(() =>
    scope(() => {
      const { inputIds, documentStarts } = batchInputs(batch, model.device);
      const attentionMask = tensor(mask, {
        shape: [batch.batchSize, batch.sequenceLength],
        device: model.device,
      });
      const { routers } = model.forward({
        inputIds,
        documentStarts: documentStarts as Tensor,
        attentionMask,
        ignorePadding: true,
        lastLogitsOnly: true,
        outputExpertNorms: outputMass,
      });
      const pick = ({ statistics, losses, plan, outputNorms }: RouterOutput) => ({
        statistics,
        losses,
        choices: wantChoices ? plan.experts : null,
        gates: outputMass ? plan.gates : null,
        norms: outputNorms,
      });
      return (routers ?? []).map(({ attention, mlp }) => ({ attention: pick(attention), mlp: pick(mlp) }));
    }),
  );
  return Promise.all(
    wanted.map(async (routers) => {
      const [attention, mlp] = await Promise.all(
        EXPERT_KINDS.map(async (kind) => {
          const { statistics, losses, choices, gates, norms } = routers[kind];
          const ifWanted = (x: Tensor | null) => (x ? readAndFree(x) : null);
          const numbers = await Promise.all([
            readAndFree(statistics),
            readAndFree(losses),
            ifWanted(choices),
            ifWanted(gates),
            ifWanted(norms),
          ]);
          return {
            statistics: numbers[0],
            losses: numbers[1],
            choices: numbers[2],
            gates: numbers[3],
            norms: numbers[4],
          };
        }),
      );
      return { attention: attention as RouterNumbers, mlp: mlp as RouterNumbers };
    }),
  );
}

async function readAndFree(x: Tensor): Promise<ArrayLike<number>> {
  try {
    return (await x.data()) as ArrayLike<number> & object;
  } finally {
    x.dispose();
  }
}

/** The experts that one router chose for each token. */
export interface TokenExperts {
  /** [B][T][K], by falling gate. */
  experts: number[][][];
  /** [B][T][K] */
  gates: number[][][];
}

/**
 * Which experts each token of a text goes to, by block. Runs without gradients, in evaluation mode.
 * @throws what `forward` throws for ids that do not fit.
 */
export async function tokenExperts(
  model: ModuleFormerForCausalLM,
  inputs: Pick<CausalLMInputs, 'inputIds' | 'attentionMask'>,
): Promise<Record<ExpertKind, TokenExperts>[]> {
  const wasTraining = model.training;
  model.eval();
  let plans;
  try {
    plans = noGrad(() =>
      scope(() => {
        const { routing } = model.forward({ ...inputs, lastLogitsOnly: true });
        const pick = ({ experts, gates }: RoutingPlan) => ({ experts, gates });
        return (routing ?? []).map(({ attention, mlp }) => ({ attention: pick(attention), mlp: pick(mlp) }));
      }),
    );
  } finally {
    model.train(wasTraining);
  }
  const batchSize =
    inputs.inputIds instanceof Tensor ? (inputs.inputIds.shape[0] as number) : inputs.inputIds.length;
  const read = async ({ experts, gates }: Pick<RoutingPlan, 'experts' | 'gates'>): Promise<TokenExperts> => {
    const [tokens, topK] = experts.shape as [number, number];
    const shape = [batchSize, tokens / batchSize, topK] as const;
    return {
      experts: nested(await readAndFree(experts), shape),
      gates: nested(await readAndFree(gates), shape),
    };
  };
  return Promise.all(
    plans.map(async ({ attention, mlp }) => ({ attention: await read(attention), mlp: await read(mlp) })),
  );
}

function nested(values: ArrayLike<number>, [B, T, K]: readonly [number, number, number]): number[][][] {
  const range = (length: number): number[] => Array.from({ length }, (_, i) => i);
  return range(B).map((b) => range(T).map((t) => range(K).map((k) => values[(b * T + t) * K + k] as number)));
}
