import { Linear } from '../nn/layers.js';
import { LAYER_NORM_EPS, ModuleFormerBlock } from './block.js';
import { CausalLM } from './causal-lm.js';
import { ModuleFormerConfig } from './config.js';
import { loadingDType, type BuildOptions, type LoadOptions, type ModelOptions } from './pretrained-model.js';
import { quantize } from './quantize.js';
import { Transformer } from './transformer.js';
import type { ParameterFactory } from '../nn/parameter-factory.js';

/** The blocks of a ModuleFormer between embedding and final norm. */
export function moduleFormerTransformer(make: ParameterFactory, config: ModuleFormerConfig): Transformer {
  return new Transformer(make, config, LAYER_NORM_EPS, (layer) => new ModuleFormerBlock(make, config, layer));
}

/** A ModuleFormer language model (arXiv 2306.04640). */
export class ModuleFormerForCausalLM extends CausalLM<ModuleFormerConfig> {
  protected readonly architecture = 'ModuleFormerForCausalLM';
  protected readonly transformer: Transformer;
  protected readonly head: Linear;

  /** A new model with random parameters, in evaluation mode. */
  constructor(config: ModuleFormerConfig, options: ModelOptions & BuildOptions = {}) {
    super(config, options, { weight: config.aux_loss_weight, type: config.aux_loss_type });
    this.transformer = this.child('transformer', moduleFormerTransformer(this.make, config));
    const { n_embd: D, vocab_size: V, initializer_range: std } = config;
    this.head = this.child('lm_head', new Linear(this.make, D, V, { std, bias: false }));
  }

  /**
   * Loads `config.json` and the weights in `dir`; evaluation mode.
   * @throws ConfigError, CheckpointError
   */
  static async fromPretrained(dir: string, options: LoadOptions = {}): Promise<ModuleFormerForCausalLM> {
    const config = await ModuleFormerConfig.fromFile(dir);
    const dtype = await loadingDType(dir, options.dtype);
    const model = new ModuleFormerForCausalLM(config, { ...options, dtype, uninitialised: true });
    await model.loadWeights(dir);
    if (options.quantize) quantize(model);
    return model;
  }
}
