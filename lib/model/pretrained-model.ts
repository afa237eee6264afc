import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ValueError } from '../errors.js';
import type { FileToWrite } from '../io/atomic.js';
import { checkpointFiles, ShardedCheckpoint, writeCheckpoint } from '../io/sharded-checkpoint.js';
import type { Device, FloatDType } from '../native/binding.js';
import { Module } from '../nn/module.js';
import { ParameterFactory } from '../nn/parameter-factory.js';
import { toJsonFields } from './config-fields.js';
import { dominantDType, loadParameters, tensorToWrite } from './weights.js';

/** How a new model starts. */
export interface ModelOptions {
  /** Of parameters and activations. Default 'f32'. */
  dtype?: FloatDType;
  /** Default 'cpu'. */
  device?: Device;
  /** Of the initial parameters, of dropout and of sampled top-k. Default 0. */
  seed?: number;
}

/** How a checkpoint is loaded. */
export interface LoadOptions extends ModelOptions {
  /** Default: that of the checkpoint. */
  dtype?: FloatDType;
  /** 'i8': quantizes the weights once they are loaded, see `quantize`. */
  quantize?: 'i8';
}

/** How a checkpoint is written. */
export interface SaveOptions {
  /** The most bytes in one file of weights. Default 5 GB. */
  maxShardBytes?: number;
}

export interface LoadWeightsOptions {
  /** Parameters whose names begin so keep their values. */
  except?: string;
  /** Names in the checkpoint that may be passed over. */
  ignore?: (name: string) => boolean;
}

/** What `new` needs beyond the public options: a model that a checkpoint will fill starts uninitialised. */
export interface BuildOptions extends ModelOptions {
  /** @internal */
  uninitialised?: boolean;
}

/** A model with a config that can be saved as a Hugging Face directory. */
export abstract class PretrainedModel<C extends { toJSON(): Record<string, unknown> }> extends Module {
  /** The content of its config.json. */
  readonly config: C;
  /** Of parameters and activations. */
  readonly dtype: FloatDType;
  /** Where its parameters are. */
  readonly device: Device;
  /** Decides dropout and sampled top-k together with `forwardCount`. */
  readonly seed: number;
  /** Training passes so far: random numbers never repeat. Part of a training checkpoint. */
  forwardCount = 0;
  /** Makes the parameters, in order. */
  protected readonly make: ParameterFactory;

  /** Random parameters, in evaluation mode. */
  constructor(config: C, { dtype = 'f32', device = 'cpu', seed = 0, uninitialised = false }: BuildOptions) {
    super();
    this.config = config;
    this.dtype = dtype;
    this.device = device;
    this.seed = seed;
    this.make = new ParameterFactory({ dtype, device, seed: uninitialised ? null : seed });
  }

  /** The name that transformers would give the class, for `architectures`. */
  protected abstract readonly architecture: string;

  /**
   * Writes `config.json` and `model.safetensors` (or shards and their index) into `dir`. Files that are there stay as
   * they are until all new ones are complete; other files of weights are then removed.
   * @throws CheckpointError when the disk is full or `dir` cannot be written.
   */
  async savePretrained(dir: string, options: SaveOptions = {}): Promise<void> {
    await mkdir(dir, { recursive: true });
    await writeCheckpoint(dir, this.checkpointFiles(dir, options));
  }

  /** @internal The files of `savePretrained`. */
  checkpointFiles(dir: string, options: SaveOptions = {}): FileToWrite[] {
    const torchDType = { f64: 'float64', f32: 'float32', bf16: 'bfloat16' }[this.dtype];
    const config = toJsonFields({
      ...this.config.toJSON(),
      architectures: [this.architecture],
      torch_dtype: torchDType,
    });
    const gone = [...this.namedParameters()].find(([, parameter]) => parameter.isDisposed);
    if (gone) throw new ValueError(`savePretrained: ${gone[0]} is disposed or quantized; save before that`);
    const tensors = [...this.namedParameters()].map(([name, parameter]) => tensorToWrite(name, parameter));
    return [
      ...checkpointFiles(dir, tensors, options),
      { path: join(dir, 'config.json'), content: `${JSON.stringify(config, null, 2)}\n` },
    ];
  }

  /**
   * Fills the parameters from the checkpoint in `dir`; nothing is changed when names or shapes do not fit.
   * @throws CheckpointError
   */
  async loadWeights(dir: string, options: LoadWeightsOptions = {}): Promise<void> {
    await using source = await ShardedCheckpoint.open(dir);
    const wanted = [...this.namedParameters()].filter(
      ([name]) => options.except === undefined || !name.startsWith(options.except),
    );
    await loadParameters(new Map(wanted), source, dir, options.ignore);
  }
}

/** The dtype to load a checkpoint in: the one asked for, or the one it has. */
export async function loadingDType(dir: string, wanted: FloatDType | undefined): Promise<FloatDType> {
  if (wanted) return wanted;
  await using source = await ShardedCheckpoint.open(dir);
  return dominantDType(source);
}
