// node-llama-cpp is not a dependency: `npm install --no-save node-llama-cpp` (MIT, some 700 MB, prebuilt) before this.

interface LlamaSequence {
  clearHistory(): Promise<void>;
  evaluateWithoutGeneratingNewTokens(tokens: number[]): Promise<void>;
  evaluate(tokens: number[], options: { temperature: number }): AsyncIterable<number>;
}

interface LlamaContext {
  getSequence(): LlamaSequence;
}

interface LlamaModel {
  createContext(options: { contextSize: number; batchSize: number; threads: number }): Promise<LlamaContext>;
  dispose(): Promise<void>;
}

/** What the benchmark uses of it. */
export interface Llama {
  version: string;
  loadModel(options: { modelPath: string; gpuLayers: number }): Promise<LlamaModel>;
}

interface NodeLlamaCpp {
  getLlama(options: object): Promise<Omit<Llama, 'version'> & { llamaCppRelease: { release: string } }>;
}

/** llama.cpp on the processor; throws when it is not installed. */
export async function loadLlama(threads: number): Promise<Llama> {
  const name = 'node-llama-cpp';
  let found: NodeLlamaCpp;
  try {
    found = (await import(name)) as NodeLlamaCpp;
  } catch (cause) {
    throw new Error(`bench: ${name} is missing: npm install --no-save ${name}`, { cause });
  }
  const llama = await found.getLlama({ gpu: false, build: 'never', maxThreads: threads, logLevel: 'warn' });
  return {
    version: `llama.cpp ${llama.llamaCppRelease.release}`,
    loadModel: (options) => llama.loadModel(options),
  };
}
