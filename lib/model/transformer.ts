import { checkpoint, dropout, reshape } from '../autograd/index.js';
import { Embedding, LayerNorm } from '../nn/layers.js';
import { Module } from '../nn/module.js';
import type { ParameterFactory } from '../nn/parameter-factory.js';
import { scope } from '../scope.js';
import type { Tensor } from '../tensor.js';
import type { BlockOutput } from './block.js';
import { contextTensors, places, type ForwardContext } from './forward-context.js';

export interface Block extends Module {
  forward(x: Tensor, context: ForwardContext): BlockOutput;
}

export interface TransformerShape {
  vocab_size: number;
  n_embd: number;
  n_layer: number;
  embd_pdrop: number;
  initializer_range: number;
}

export interface TransformerOutput {
  /** [N, D], after the final norm. */
  x: Tensor;
  blocks: BlockOutput[];
  /** L + 1 tensors [B, T, D]: the embedding, the output of every block but the last, and x. */
  hiddenStates: Tensor[] | null;
}

/** Token embedding, blocks and final norm. */
export class Transformer extends Module {
  /** Recompute each block in backward instead of keeping its activations. */
  gradientCheckpointing = false;
  readonly #embedding: Embedding;
  readonly #blocks: Block[];
  readonly #norm: LayerNorm;
  readonly #dropout: number;

  constructor(
    make: ParameterFactory,
    config: TransformerShape,
    eps: number,
    makeBlock: (layer: number) => Block,
  ) {
    super();
    this.#dropout = config.embd_pdrop;
    this.#embedding = this.child(
      'wte',
      new Embedding(make, config.vocab_size, config.n_embd, config.initializer_range),
    );
    this.#blocks = Array.from({ length: config.n_layer }, (_, layer) =>
      this.child(`h.${layer}`, makeBlock(layer)),
    );
    this.#norm = this.child('ln_f', new LayerNorm(make, config.n_embd, eps));
  }

  /** ids [B, T] i32 or i64. */
  forward(ids: Tensor, context: ForwardContext, outputHiddenStates: boolean): TransformerOutput {
    const { batchSize: B, length: T } = context;
    const hiddenStates: Tensor[] = [];
    const note = (x: Tensor): void => {
      if (outputHiddenStates) hiddenStates.push(reshape(x, [B, T, x.shape[1] as number]));
    };
    let x = this.#embed(ids, context);
    const blocks = this.#blocks.map((block) => {
      note(x);
      const output = scope(() => this.#run(block, x, context));
      ({ x } = output);
      return output;
    });
    context.cache?.advance(T);
    x = this.#norm.forward(x);
    note(x);
    return { x, blocks, hiddenStates: outputHiddenStates ? hiddenStates : null };
  }

  #embed(ids: Tensor, context: ForwardContext): Tensor {
    const rows = this.#embedding.forward(reshape(ids, [ids.numel]));
    if (!this.training || this.#dropout === 0) return rows;
    return dropout(rows, this.#dropout, context.randomKey(this.#blocks.length, places.embedding));
  }

  #run(block: Block, x: Tensor, context: ForwardContext): BlockOutput {
    if (!this.gradientCheckpointing) return block.forward(x, context);
    // What is saved lives until backward; the context's own tensors are freed when the forward pass returns.
    const names = contextTensors.filter((name) => context[name]);
    return checkpoint(
      [x, ...names.map((name) => context[name] as Tensor)],
      block.parameters(),
      ([input, ...saved]) => {
        const kept = Object.fromEntries(names.map((name, i) => [name, saved[i]]));
        return block.forward(input as Tensor, { ...context, ...kept });
      },
      ({ x: y, routers }) => (routers ? [y, routers.attention.losses, routers.mlp.losses] : [y]),
    );
  }
}
