import { ConfigError } from '../errors.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from './config.js';
import { DenseConfig, type DenseConfigInit } from './dense-config.js';

/** What the three released models have in common. */
const MOLM = {
  vocab_size: 50295,
  block_size: 512,
  history_length: 512,
  n_embd: 1024,
  n_head: 1,
  att_hidden: 1024,
  ffd_hidden: 2048,
  gating_size: 256,
  gate_type: 'mlp',
  n_att_experts: 16,
  n_mlp_experts: 32,
} as const;

const moduleFormerPresets = {
  'MoLM-350M-4B': { ...MOLM, n_layer: 24, k_att: 2, k_mlp: 2 },
  'MoLM-700M-4B': { ...MOLM, n_layer: 24, k_att: 4, k_mlp: 4 },
  'MoLM-700M-8B': { ...MOLM, n_layer: 48, k_att: 2, k_mlp: 2 },
  /** About a million parameters: seconds to try something out. */
  tiny: {
    vocab_size: 1024,
    n_embd: 64,
    n_layer: 4,
    n_head: 4,
    att_hidden: 64,
    ffd_hidden: 128,
    gating_size: 32,
    n_att_experts: 8,
    n_mlp_experts: 8,
    aux_loss_weight: 0.01,
    bos_token_id: 0,
    eos_token_id: 0,
  },
  /** About ten million parameters: a corpus of some megabytes. */
  small: {
    vocab_size: 4096,
    n_embd: 256,
    n_layer: 4,
    n_head: 4,
    att_hidden: 256,
    ffd_hidden: 256,
    gating_size: 128,
    n_att_experts: 4,
    n_mlp_experts: 8,
    aux_loss_weight: 0.01,
    bos_token_id: 0,
    eos_token_id: 0,
  },
  /** The shape that the benchmarks measure. */
  base: {
    vocab_size: 8192,
    n_embd: 512,
    n_layer: 6,
    n_head: 8,
    att_hidden: 512,
    ffd_hidden: 1024,
    n_att_experts: 8,
    n_mlp_experts: 16,
    aux_loss_weight: 0.01,
    bos_token_id: 0,
    eos_token_id: 0,
  },
} as const satisfies Record<string, ModuleFormerConfigInit>;

const densePresets = {
  'Pythia-410M': { n_embd: 1024, n_layer: 24, n_head: 16 },
  'Pythia-1.4B': { n_embd: 2048, n_layer: 24, n_head: 16 },
} as const satisfies Record<string, DenseConfigInit>;

/** Names of the ModuleFormer presets. */
export type ModuleFormerPreset = keyof typeof moduleFormerPresets;
/** Names of the dense presets. */
export type DensePreset = keyof typeof densePresets;

/** The names that `presetConfig` knows. */
export const PRESETS = [...Object.keys(moduleFormerPresets), ...Object.keys(densePresets)] as readonly (
  ModuleFormerPreset | DensePreset
)[];

/**
 * The config of a known size. To vary it: `new ModuleFormerConfig({ ...presetConfig('tiny').toJSON(), n_layer: 2 })`.
 *
 * @throws {ConfigError} for an unknown name, which lists the known ones.
 */
export function presetConfig(name: ModuleFormerPreset): ModuleFormerConfig;
export function presetConfig(name: DensePreset): DenseConfig;
export function presetConfig(name: string): ModuleFormerConfig | DenseConfig;
export function presetConfig(name: string): ModuleFormerConfig | DenseConfig {
  if (isKeyOf(moduleFormerPresets, name)) return new ModuleFormerConfig(moduleFormerPresets[name]);
  if (isKeyOf(densePresets, name)) return new DenseConfig(densePresets[name]);
  throw new ConfigError(`unknown preset ${JSON.stringify(name)}, expected one of ${PRESETS.join(', ')}`);
}

function isKeyOf<T extends object>(object: T, key: string): key is keyof T & string {
  return Object.hasOwn(object, key);
}
