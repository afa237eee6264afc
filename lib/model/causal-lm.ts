import {
  add,
  affine,
  crossEntropy,
  embedding,
  linearCrossEntropy,
  reshape,
  shiftLabels,
} from '../autograd/index.js';
import { ShapeError } from '../errors.js';
import { generate, stream, streamBatch } from '../generation/generate.js';
import type { GenerationOptions } from '../generation/options.js';
import type { RandomKey } from '../native/binding.js';
import type { Linear } from '../nn/layers.js';
import { isQuantized, multiply } from '../nn/quantized.js';
import { sumRouterLosses, type LossWeights, type RouterLosses } from '../losses/router-losses.js';
import { scope } from '../scope.js';
import { tensor, type Tensor } from '../tensor.js';
import type { BlockRouting, BlockStatistics, ForwardContext, RouterOutput } from './forward-context.js';
import { idsToTensor, matrixToTensor, type TokenMatrix } from './inputs.js';
import type { KeyValueCache } from './key-value-cache.js';
import { PretrainedModel, type BuildOptions } from './pretrained-model.js';
import type { Transformer, TransformerOutput } from './transformer.js';

/** Ids and masks, and what the output shall hold. */
export interface ForwardInputs {
  /** [B, T] */
  inputIds: TokenMatrix;
  /** [B, T] (with a cache: [B, cached + T]); 0 marks padding, which no token attends to. Default: no padding. */
  attentionMask?: TokenMatrix;
  /** `[B, T]`: where in its row the document of a position begins; attention does not look before that. */
  documentStarts?: TokenMatrix;
  /** Whether `routing` of the routers leaves padding out of losses and statistics. Default false, as the reference. */
  ignorePadding?: boolean;
  /** Experts recorded in `routing` of another pass over as many tokens, to be used instead of the routers' choice. */
  routing?: readonly BlockRouting[];
  /**
   * Per block the `statistics` of the routers over a larger batch that these tokens are part of: the routers' losses are
   * then those of the larger batch. See `routerLoss`.
   */
  population?: readonly BlockStatistics[];
  /** Whether to give `hiddenStates`. Default false. */
  outputHiddenStates?: boolean;
  /** Whether to compute `attentions`, [T, Tk] of every head. Default false. */
  outputAttentions?: boolean;
  /** Whether `routers` tell the norm of every chosen expert's output. */
  outputExpertNorms?: boolean;
  /** Whether `routers` hold the features that new experts may read. */
  outputRouterFeatures?: boolean;
}

/** Ids, and labels where a loss is wanted. */
export interface CausalLMInputs extends ForwardInputs {
  /** `[B, T]`: the same ids; the model shifts. -100 is ignored. */
  labels?: TokenMatrix;
  /** Whether to compute `logits`. Without them, training never holds [N, V]. Default true. */
  outputLogits?: boolean;
  /** Logits of the last position of each row only: [B, 1, V]. */
  lastLogitsOnly?: boolean;
  /** Continues after the positions that the cache holds, and adds these. */
  cache?: KeyValueCache;
}

/** Hidden states, attention weights and routing, where asked for. */
export interface ModelOutput {
  /** The L + 1 hidden states [B, T, D]: the embedding, each block's output but the last, and the final norm's. */
  hiddenStates: Tensor[] | null;
  /** Per block [B, K, H, T, Tk] (K = 1 in dense models). */
  attentions: Tensor[] | null;
  /** Per block what its two routers did; null in dense models. */
  routing: BlockRouting[] | null;
  /** Per block the routers' statistics; null in dense models, and with a cache and `lastLogitsOnly`. */
  routers: { attention: RouterOutput; mlp: RouterOutput }[] | null;
}

/** Losses and logits, and what was asked for besides. */
export interface CausalLMOutput extends ModelOutput {
  /** Cross-entropy plus weighted router losses; null without labels. */
  loss: Tensor | null;
  /** Mean over the predicted tokens. */
  crossEntropy: Tensor | null;
  /** Unweighted balancing loss, summed over routers; null in dense models and with `lastLogitsOnly`. */
  auxLoss: Tensor | null;
  /** Unweighted entropy of the routers' mean probabilities, summed over routers; null as `auxLoss`. */
  concentrationLoss: Tensor | null;
  /** Unweighted mean squared logsumexp of router logits, summed over routers; null as `auxLoss`. */
  zLoss: Tensor | null;
  /** [B, T, V], f32 (f64 in f64 models). */
  logits: Tensor | null;
}

export interface CausalLMConfig {
  vocab_size: number;
  n_embd: number;
  initializer_range: number;
  eos_token_id: number | null;
  toJSON(): Record<string, unknown>;
}

/** What language models and classifiers share: from inputs to hidden states. */
export abstract class TransformerModel<C extends CausalLMConfig> extends PretrainedModel<C> {
  /** Embedding, blocks and final norm. */
  protected abstract readonly transformer: Transformer;

  /** Recompute each block in backward instead of keeping its activations: less memory, a third more work. */
  get gradientCheckpointing(): boolean {
    return this.transformer.gradientCheckpointing;
  }

  /** May be changed between passes. */
  set gradientCheckpointing(value: boolean) {
    this.transformer.gradientCheckpointing = value;
  }

  /** Ids to final hidden states. */
  protected encode(
    inputs: ForwardInputs,
    cache: KeyValueCache | null,
    wantLosses = true,
  ): TransformerOutput & { ids: Tensor } {
    const { ids, batchSize, length } = idsToTensor(
      'inputIds',
      inputs.inputIds,
      this.config.vocab_size,
      this.device,
    );
    const pass = this.training ? this.forwardCount++ : 0;
    const before = cache?.length ?? 0;
    const matrix = (name: string, values: TokenMatrix | undefined, width: number): Tensor | null =>
      values ? matrixToTensor(name, values, [batchSize, width], this.device) : null;
    const cursor = cache?.cursor;
    const keyMask = cursor ? cursor.keyMask : matrix('attentionMask', inputs.attentionMask, before + length);
    const context: ForwardContext = {
      batchSize,
      length,
      keyMask,
      documentStart: matrix('documentStarts', inputs.documentStarts, length),
      routerMask:
        inputs.ignorePadding && keyMask && before === 0 ? reshape(keyMask, [batchSize * length]) : null,
      positions: cursor?.positions ?? this.positions(inputs, { batchSize, before, length }),
      cache,
      routing: inputs.routing ?? null,
      population: inputs.population ?? null,
      wantLosses,
      outputAttentions: inputs.outputAttentions ?? false,
      outputExpertNorms: inputs.outputExpertNorms ?? false,
      outputRouterFeatures: inputs.outputRouterFeatures ?? false,
      // 64 blocks of 16 places would do; 2^16 per pass leaves room for 4096 blocks and 2^37 passes.
      randomKey: (layer, place): RandomKey => [this.seed, pass * 2 ** 16 + layer * 16 + place],
    };
    return { ids, ...this.transformer.forward(ids, context, inputs.outputHiddenStates ?? false) };
  }

  /** [B, T] i32 for models that need positions. */
  protected readonly positions: (
    inputs: ForwardInputs,
    shape: { batchSize: number; before: number; length: number },
  ) => Tensor | null = () => null;

  /** What every head puts into its output. */
  protected describe({ blocks, hiddenStates }: TransformerOutput): ModelOutput {
    return {
      hiddenStates,
      attentions: presentOf(blocks.map(({ attentionWeights }) => attentionWeights)),
      routers: presentOf(blocks.map(({ routers }) => routers)),
      routing: presentOf(blocks.map(({ routing }) => routing)),
    };
  }
}

/** The last of each T rows of x [B * T, D]. */
function lastRows(x: Tensor, B: number, T: number): Tensor {
  const rows = Int32Array.from({ length: B }, (_, b) => b * T + T - 1);
  return embedding(x, tensor(rows, { device: x.device }));
}

/** What each block has, or null when they have nothing. */
function presentOf<T>(items: readonly (T | null)[]): T[] | null {
  const present = items.filter((item) => item !== null);
  return present.length > 0 ? present : null;
}

/** Predicts the next token: transformer, then an LM head [V, D] without bias, not tied to the embedding. */
export abstract class CausalLM<C extends CausalLMConfig> extends TransformerModel<C> {
  /** What the router losses count in `loss`; `aux` starts as the config's `aux_loss_weight`. */
  readonly lossWeights: LossWeights;
  readonly #auxLossType: 'mi' | 'switch';
  /** [V, D], without bias. */
  protected abstract readonly head: Linear;

  /** `aux` says how the routers are balanced, and what that counts in `loss`. */
  constructor(config: C, options: BuildOptions, aux: { weight: number; type: 'mi' | 'switch' }) {
    super(config, options);
    this.lossWeights = { aux: aux.weight, concentration: 0, z: 0 };
    this.#auxLossType = aux.type;
  }

  /**
   * One pass. Enqueues and returns; wait with `await output.loss.item()` or `await output.logits.data()`.
   * @throws ShapeError, DTypeError, ValueError for inputs that do not fit each other or the vocabulary.
   */
  forward(inputs: CausalLMInputs): CausalLMOutput {
    return scope(() => {
      const cache = inputs.cache ?? null;
      const encoded = this.encode(inputs, cache, !(cache && inputs.lastLogitsOnly));
      const [B, T] = encoded.ids.shape as [number, number];
      const labels = inputs.labels && matrixToTensor('labels', inputs.labels, [B, T], this.device);
      const { logits, crossEntropy: ce } = this.#predict(encoded.x, [B, T], labels, inputs);
      const described = this.describe(encoded);
      const losses =
        described.routers && !inputs.lastLogitsOnly ? this.#routerLosses(described.routers) : null;
      return {
        ...described,
        loss: ce && (losses ? this.#total(ce, losses) : ce),
        crossEntropy: ce,
        auxLoss: losses?.auxLoss ?? null,
        concentrationLoss: losses?.concentrationLoss ?? null,
        zLoss: losses?.zLoss ?? null,
        logits,
      };
    });
  }

  /**
   * Continues each prompt up to `maxNewTokens` tokens or a stop token, which is included; resolves to the new tokens of
   * each row. See `GenerationOptions`.
   * @throws ValueError, ShapeError for options out of range and prompts that do not fit the model.
   */
  generate(options: GenerationOptions): Promise<number[][]> {
    return generate(this, options);
  }

  /** As `generate`, for one prompt, token by token as they come. */
  stream(options: GenerationOptions): AsyncGenerator<number, void, undefined> {
    return stream(this, options);
  }

  /** As `generate`, step by step: a token for each row, null for rows that have ended. */
  streamBatch(options: GenerationOptions): AsyncGenerator<(number | null)[], void, undefined> {
    return streamBatch(this, options);
  }

  #predict(
    x: Tensor,
    [B, T]: [number, number],
    labels: Tensor | undefined,
    { outputLogits = true, lastLogitsOnly = false }: CausalLMInputs,
  ): { logits: Tensor | null; crossEntropy: Tensor | null } {
    const V = this.config.vocab_size;
    const outputDType = this.dtype === 'f64' ? 'f64' : 'f32';
    if (lastLogitsOnly) {
      if (labels)
        throw new ShapeError('forward: lastLogitsOnly leaves no logits for labels; give one of the two');
      const last = T === 1 ? x : lastRows(x, B, T);
      const logits = multiply(last, this.head.weight, null, { outputDType });
      return { logits: reshape(logits, [B, 1, V]), crossEntropy: null };
    }
    const shifted = labels && reshape(shiftLabels(labels), [B * T]);
    if (!outputLogits && !(shifted && isQuantized(this.head.weight))) {
      return {
        logits: null,
        crossEntropy: shifted ? linearCrossEntropy(x, this.head.weight, shifted) : null,
      };
    }
    const logits = multiply(x, this.head.weight, null, { outputDType });
    return {
      logits: outputLogits ? reshape(logits, [B, T, V]) : null,
      crossEntropy: shifted ? crossEntropy(logits, shifted) : null,
    };
  }

  #routerLosses(routers: readonly { attention: RouterOutput; mlp: RouterOutput }[]): RouterLosses {
    return sumRouterLosses(
      routers.flatMap(({ attention, mlp }) => [attention.losses, mlp.losses]),
      this.#auxLossType,
    );
  }

  #total(ce: Tensor, { auxLoss, concentrationLoss, zLoss }: RouterLosses): Tensor {
    const { aux, concentration, z } = this.lossWeights;
    let total = add(ce, affine(auxLoss, aux, 0));
    if (concentration !== 0) total = add(total, affine(concentrationLoss, concentration, 0));
    if (z !== 0) total = add(total, affine(zLoss, z, 0));
    return total;
  }
}
