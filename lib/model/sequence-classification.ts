import { crossEntropy, embedding, lastTokenRows, linear } from '../autograd/index.js';
import { ShapeError, ValueError } from '../errors.js';
import { bceWithLogitsLoss, mseLoss } from '../losses/classification.js';
import { Linear } from '../nn/layers.js';
import { scope } from '../scope.js';
import { tensor, type Tensor } from '../tensor.js';
import { TransformerModel, type ForwardInputs, type ModelOutput } from './causal-lm.js';
import { ModuleFormerConfig, type PROBLEM_TYPES } from './config.js';
import { moduleFormerTransformer } from './moduleformer.js';
import { loadingDType, type BuildOptions, type LoadOptions, type ModelOptions } from './pretrained-model.js';
import type { Transformer } from './transformer.js';

/** Class indices [B], or per row a number per label: targets of a regression or 0 and 1 for several labels. */
export type ClassificationLabels = readonly number[] | readonly (readonly number[])[];

/** Ids, and labels where a loss is wanted. */
export interface ClassificationInputs extends ForwardInputs {
  /** One row each; a single class of -100 is ignored. */
  labels?: ClassificationLabels;
}

/** Loss and logits of a classifier. */
export interface ClassificationOutput extends ModelOutput {
  /** The head's loss alone; null without labels. */
  loss: Tensor | null;
  /** [B, num_labels], f32 (f64 in f64 models). */
  logits: Tensor;
}

/**
 * A ModuleFormer with a score head [num_labels, D], read at each row's position count(id != pad_token_id) - 1, or the
 * last one when there is no padding token.
 */
export class ModuleFormerForSequenceClassification extends TransformerModel<ModuleFormerConfig> {
  protected readonly architecture = 'ModuleFormerForSequenceClassification';
  /** Embedding, blocks and final norm. */
  protected readonly transformer: Transformer;
  readonly #head: Linear;

  /** A new classifier with random parameters, in evaluation mode. */
  constructor(config: ModuleFormerConfig, options: ModelOptions & BuildOptions = {}) {
    super(config, options);
    this.transformer = this.child('transformer', moduleFormerTransformer(this.make, config));
    const { n_embd: D, num_labels, initializer_range: std } = config;
    this.#head = this.child('score', new Linear(this.make, D, num_labels, { std, bias: false }));
  }

  /**
   * Loads a classifier, or, with `newHead`, a language model whose LM head is replaced by a new score head.
   * @throws ConfigError, CheckpointError
   */
  static async fromPretrained(
    dir: string,
    options: LoadOptions & {
      newHead?: { numLabels: number; problemType?: (typeof PROBLEM_TYPES)[number] };
    } = {},
  ): Promise<ModuleFormerForSequenceClassification> {
    const { newHead, ...rest } = options;
    const saved = await ModuleFormerConfig.fromFile(dir);
    const dtype = await loadingDType(dir, options.dtype);
    if (!newHead) {
      const model = new ModuleFormerForSequenceClassification(saved, { ...rest, dtype, uninitialised: true });
      await model.loadWeights(dir);
      return model;
    }
    const config = new ModuleFormerConfig({
      ...saved.toJSON(),
      id2label: null,
      label2id: null,
      num_labels: newHead.numLabels,
      problem_type: newHead.problemType ?? null,
    });
    const model = new ModuleFormerForSequenceClassification(config, { ...rest, dtype });
    await model.loadWeights(dir, { except: 'score.', ignore: (name) => name === 'lm_head.weight' });
    return model;
  }

  /**
   * One pass; enqueues and returns.
   * @throws ShapeError, ValueError for labels that fit neither the batch nor the problem type.
   */
  forward(inputs: ClassificationInputs): ClassificationOutput {
    return scope(() => {
      const encoded = this.encode(inputs, null);
      const rows = lastTokenRows(encoded.ids, this.config.pad_token_id);
      const outputDType = this.dtype === 'f64' ? 'f64' : 'f32';
      const logits = linear(embedding(encoded.x, rows), this.#head.weight, null, { outputDType });
      return {
        ...this.describe(encoded),
        logits,
        loss: inputs.labels ? this.#loss(logits, inputs.labels) : null,
      };
    });
  }

  #loss(logits: Tensor, labels: ClassificationLabels): Tensor {
    const [B, L] = logits.shape as [number, number];
    if (labels.length !== B) throw new ShapeError(`labels: ${labels.length} rows, expected ${B}`);
    const nested = labels.map((label) => (typeof label === 'number' ? [label] : label));
    if (this.#problemType(nested) === 'single_label_classification') {
      return crossEntropy(logits, tensor(classIndices(nested, L), { device: this.device }));
    }
    const wrong = nested.findIndex((row) => row.length !== L || !row.every(Number.isFinite));
    if (wrong >= 0) {
      throw new ShapeError(
        `labels: row ${wrong} is [${nested[wrong]?.join(', ')}], expected ${L} finite numbers`,
      );
    }
    const target = tensor(nested, { dtype: logits.dtype, shape: [B, L], device: this.device });
    return this.#problemType(nested) === 'regression'
      ? mseLoss(logits, target)
      : bceWithLogitsLoss(logits, target);
  }

  #problemType(labels: readonly (readonly number[])[]): (typeof PROBLEM_TYPES)[number] {
    const { problem_type, num_labels } = this.config;
    if (problem_type) return problem_type;
    if (num_labels === 1) return 'regression';
    return labels.every((row) => row.length === 1 && Number.isInteger(row[0]))
      ? 'single_label_classification'
      : 'multi_label_classification';
  }
}

function classIndices(labels: readonly (readonly number[])[], count: number): Int32Array {
  return Int32Array.from(labels, (row, b) => {
    const [label] = row;
    if (row.length === 1 && Number.isInteger(label) && (label as number) < count && (label as number) >= 0) {
      return label as number;
    }
    if (row.length === 1 && label === -100) return -100;
    throw new ValueError(`labels: row ${b} is ${row.join(', ')}, expected one class from 0 to ${count - 1}`);
  });
}
