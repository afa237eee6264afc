export * from './autograd/index.js';
export * from './data/index.js';
export * from './errors.js';
export { addExperts, fingerprint, saveNewExperts } from './experts/adapter.js';
export { compareOutputs, type OutputChange } from './experts/compare.js';
export {
  extendExperts,
  newExpertGroups,
  newExpertPatterns,
  type ExtendOptions,
  type NewRows,
} from './experts/extend.js';
export { domainInformation, entropy } from './experts/information.js';
export {
  pruneExperts,
  PRUNE_CRITERIA,
  type PruneAmount,
  type PruneOptions,
  type PruneResult,
} from './experts/prune.js';
export { RouterMemory } from './experts/router-memory.js';
export { upcycle, type UpcycleOptions } from './experts/upcycle.js';
export { renderUsage } from './experts/usage-page.js';
export * from './experts/usage.js';
export * from './losses/classification.js';
export type { LossWeights, RouterLosses } from './losses/router-losses.js';
export type { GenerationOptions } from './generation/options.js';
export { padLeft } from './generation/prompt.js';
export {
  CausalLM,
  TransformerModel,
  type CausalLMInputs,
  type CausalLMOutput,
  type ForwardInputs,
  type ModelOutput,
} from './model/causal-lm.js';
export { ModuleFormerConfig, type ModuleFormerConfigInit } from './model/config.js';
export { countParameters, type ParameterCount } from './model/count-parameters.js';
export { DenseConfig, type DenseConfigInit } from './model/dense-config.js';
export { DenseForCausalLM } from './model/dense.js';
export type { BlockRouting, BlockStatistics, RouterOutput } from './model/forward-context.js';
export type { TokenMatrix } from './model/inputs.js';
export { KeyValueCache } from './model/key-value-cache.js';
export { ModuleFormerForCausalLM } from './model/moduleformer.js';
export { PRESETS, presetConfig, type DensePreset, type ModuleFormerPreset } from './model/presets.js';
export type { LoadOptions, ModelOptions, SaveOptions } from './model/pretrained-model.js';
export { quantize, type ModelQuantizeOptions } from './model/quantize.js';
export {
  ModuleFormerForSequenceClassification,
  type ClassificationInputs,
  type ClassificationLabels,
  type ClassificationOutput,
} from './model/sequence-classification.js';
export type { AddonSource } from './native/load.js';
export type {
  CudaDevices,
  Device,
  DType,
  FloatDType,
  InstructionSets,
  MemoryStats,
  RandomKey,
} from './native/binding.js';
export * from './nn/layers.js';
export { Module, type TrainablePattern } from './nn/module.js';
export { ParameterFactory, type FactoryOptions } from './nn/parameter-factory.js';
export { AdamW } from './optimizer/adamw.js';
export { clipGradNorm } from './optimizer/clip.js';
export * from './optimizer/schedule.js';
export { scope } from './scope.js';
export {
  describeBackend,
  instructionSets,
  memoryStats,
  numThreads,
  resetPeakMemory,
  setMemoryLimit,
  setNumThreads,
  synchronize,
  trimMemory,
  type BackendDescription,
} from './system.js';
export {
  tensor,
  Tensor,
  type NestedArray,
  type RowRange,
  type TensorData,
  type TensorOptions,
} from './tensor.js';
export { batchInputs, countPredicted, textMask } from './training/batch.js';
export {
  checkpointSteps,
  latestCheckpoint,
  verifyCheckpoint,
  type TrainingState,
} from './training/checkpoint-files.js';
export {
  loadTrainingCheckpoint,
  saveTrainingCheckpoint,
  type TrainingCheckpoint,
} from './training/checkpoint.js';
export { evaluate, type Evaluation } from './training/evaluate.js';
export type { LossWeightRamp, LossWeightSchedules } from './training/loss-weights.js';
export * from './training/metrics.js';
export { weightDecayGroups } from './training/parameter-groups.js';
export { Progress } from './training/progress.js';
export { renderReport, writeReport } from './training/report.js';
export { writeSamples, writeSummary } from './training/summary.js';
export { Trainer, type TrainerOptions, type TrainingResult } from './training/trainer.js';
