// The ways of learning a new language that are compared.
import { fineTuned, pretrained, pretrainedDense, withLora, withNewExperts, type Training } from './models.js';
import type { Model, Recipe } from './recipes.js';
import type { Part, Workbench } from './workbench.js';

export interface Arm {
  /** What is trained, for the picture. */
  group: string;
  from: Recipe;
  recipe: Recipe;
  /** Whether the recipe's model is `from` with new experts. */
  extends: boolean;
}

/** How new experts are made and trained; what is left out is as in `plain`. */
interface NewExperts {
  /** Times the scale's `newExperts`. */
  experts: number;
  /** Whether they start as copies of the experts that new text uses most. */
  copies: boolean;
  /** New hidden units of the routers, times the old ones. */
  gating: number;
  /** Rows of tokens that have this part of their occurrences in new text are trained too; 0: none are. */
  tokens: number;
  /** The part of the text in training that is old. */
  old: number;
  /** Times the scale's `fineTuningSteps`. */
  steps: number;
  /** Times the scale's `lr`. */
  lr: number;
  /** Weight of the router memory. */
  memory: number;
  /** The part of the steps after which it sets in, rising. */
  memoryFrom?: number;
  routerDecay: number;
  /** Weight of load balancing. */
  aux: number;
}

const plain: NewExperts = {
  experts: 1,
  copies: false,
  gating: 0,
  tokens: 0,
  old: 0,
  steps: 1,
  lr: 1,
  memory: 0,
  routerDecay: 1,
  aux: 0,
};

const TOKENS = 0.99;
/** Enough new experts and steps to learn the language, old text apart. */
const large = { experts: 4, tokens: TOKENS, steps: 4 } as const;
const half = { ...large, gating: 1, old: 0.5 } as const;
const long = { ...large, gating: 1, steps: 8, copies: true, routerDecay: 0, aux: 0.01 } as const;
/** What came out best. */
const best = { ...long, old: 2 / 3 } as const;

/** By what people call them; those but the first and the last with the first seed alone. */
const attempts: Record<string, Partial<NewExperts>> = {
  'new experts alone': {},
  'router decay 30': { routerDecay: 30 },
  'router memory': { memory: 1 },
  '1 part in 9 old text': { old: 1 / 9 },
  'rows of new tokens': { tokens: TOKENS },
  'rows of new tokens, router memory': { tokens: TOKENS, memory: 1 },
  'large: rows of new tokens, 4 times the experts and steps': large,
  'large, hidden units of routers': { ...large, gating: 1 },
  'large, hidden units, half old text': half,
  'large, hidden units, half old text, router memory': { ...half, memory: 1 },
  'large, hidden units, half old text, router memory rising from a quarter on': {
    ...half,
    memory: 1,
    memoryFrom: 0.25,
  },
  'large, hidden units, half old text, no router decay, half the learning rate': {
    ...half,
    routerDecay: 0,
    lr: 0.5,
  },
  'large, hidden units, half old text, no router decay, balancing': { ...half, routerDecay: 0, aux: 0.01 },
  'large, hidden units, half old text, no router decay, copies': { ...half, routerDecay: 0, copies: true },
  'large, hidden units, 3/4 old text, no router decay, copies, balancing, twice the steps': {
    ...long,
    old: 0.75,
  },
  'best: large, hidden units, 2/3 old text, no router decay, copies, balancing, twice the steps': best,
};

/** Text of which the part `old` is of the old domains, all alike. */
function mixture({ scale }: Workbench, old: number): Part[] {
  const each = Math.round((scale.bytes * old) / (1 - old) / scale.domains.length);
  return [
    { domain: scale.newDomain, bytes: scale.bytes },
    ...(old > 0 ? scale.domains.map((domain) => ({ domain, bytes: each })) : []),
  ];
}

export interface Bases {
  seed: number;
  /** Of the dense model. */
  width: number;
  /** Parameters of the low-rank adapters. */
  size: number;
}

export function armsOf(bench: Workbench, { seed, width, size }: Bases): Record<string, Arm> {
  const { scale } = bench;
  const [base, dense] = [pretrained(bench, seed), pretrainedDense(bench, seed, width)];
  const training = ({ old, steps, lr }: Pick<NewExperts, 'old' | 'steps' | 'lr'>): Training => ({
    texts: mixture(bench, old),
    steps: Math.round(steps * scale.fineTuningSteps),
    lr: lr * scale.lr,
    seed,
  });
  const newExperts = (own: Partial<NewExperts>): Arm => {
    const all = { ...plain, ...own };
    const { experts, copies, tokens, gating, memory, memoryFrom, routerDecay, aux } = all;
    const extension = {
      experts: {
        attention: Math.round(experts * scale.newExperts.attention),
        mlp: Math.round(experts * scale.newExperts.mlp),
      },
      copies,
      tokens,
      gating: Math.round(gating * (scale.model.gating_size ?? 0)),
    };
    const recipe = withNewExperts(bench, base, extension, {
      ...training(all),
      lossWeights: { aux },
      routerDecay,
      memory,
      ...(memoryFrom === undefined ? {} : { memoryFrom }),
    });
    const group = all.old > 0 ? 'new experts, with old text' : 'new experts';
    return { group, from: base, recipe, extends: true };
  };
  const whole = { old: 0, steps: 1, lr: 1 / 3 };
  const alone = { ...training({ ...whole, lr: 1 }), lossWeights: { aux: 0 } };
  const adapters = (lr: number): Arm => ({
    group: 'dense, adapters',
    from: dense,
    recipe: withLora(bench, dense, { ...alone, lr }, size),
    extends: false,
  });
  const all = (group: string, from: typeof base | typeof dense, how: typeof whole): Arm => ({
    group,
    from,
    recipe: fineTuned<Model>(bench, from, training(how)),
    extends: false,
  });
  const names = Object.keys(attempts);
  const chosen = isFirst(bench, seed) ? names : [names[0] as string, names.at(-1) as string];
  return {
    'experts, all fine-tuned': all('experts, all', base, whole),
    'dense, all fine-tuned': all('dense, all', dense, whole),
    'dense, low-rank adapters': adapters(scale.lr),
    ...(isFirst(bench, seed)
      ? {
          'dense, low-rank adapters, a third of the learning rate': adapters(scale.lr / 3),
          'experts, all fine-tuned, text and steps of the best': all('experts, all, with old text', base, {
            ...whole,
            old: best.old,
            steps: best.steps,
          }),
        }
      : {}),
    ...Object.fromEntries(chosen.map((name) => [name, newExperts(attempts[name] ?? {})])),
  };
}

/** Whether everything is tried with this seed: not in the quick run, whose time is short. */
function isFirst({ scale }: Workbench, seed: number): boolean {
  return scale.name === 'full' && seed === scale.seeds[0];
}
