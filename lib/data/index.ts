export { readDocuments, type CorpusOptions, type Document } from './corpus.js';
export { TextDataset, type BuildOptions, type Split } from './dataset.js';
export { DecodeStream } from './decode-stream.js';
export { DataLoader, IGNORED_LABEL, type Batch, type DataLoaderOptions, type LoaderState } from './loader.js';
export {
  evaluateNgram,
  KneserNeyBigramModel,
  UnigramModel,
  type NextTokenModel,
  type NgramEvaluation,
} from './ngram.js';
export { TokenReader } from './shards.js';
export * from './streamed-batches.js';
export { Tokenizer, type TokenizerConfig, type TokenizerJson } from './tokenizer.js';
export { trainTokenizer, type TrainTokenizerOptions } from './train-tokenizer.js';
