import { readDocuments } from '../data/corpus.js';
import { streamedBatches } from '../data/streamed-batches.js';
import { Tokenizer } from '../data/tokenizer.js';
import { describeBackend } from '../system.js';
import { evaluate } from '../training/evaluate.js';
import { prepareBackend } from './backend.js';
import { grouped, printJson, printTable } from './command.js';
import type { EvalFlags } from './eval-command.js';
import { loadCausalLM, resolveCheckpoint } from './models.js';

export async function evaluateCheckpoint(path: string, flags: EvalFlags): Promise<void> {
  const { data: files, textField, delimiter, sequenceLength, batchSize, dtype, device, quantize } = flags;
  prepareBackend(flags);
  const checkpoint = await resolveCheckpoint(path);
  const tokenizer = await Tokenizer.fromFile(flags.tokenizer ?? checkpoint);
  const model = await loadCausalLM(checkpoint, {
    device,
    ...(dtype === undefined ? {} : { dtype }),
    ...(quantize === undefined ? {} : { quantize }),
  });
  tokenizer.assertFits(model.config.vocab_size);
  const documents = readDocuments({
    files,
    ...(textField === undefined ? {} : { textField }),
    ...(delimiter === undefined ? {} : { delimiter }),
  });
  const batches = streamedBatches(documents, { tokenizer, batchSize, sequenceLength });
  const { loss, perplexity, tokens } = await evaluate(model, batches);
  if (flags.json) {
    printJson({ checkpoint, loss, perplexity, tokens, dtype: model.dtype, sequenceLength });
    return;
  }
  printTable([
    ['checkpoint', checkpoint],
    ['perplexity', perplexity.toFixed(3)],
    ['loss', `${loss.toFixed(5)} nats per token`],
    ['predicted tokens', grouped(tokens)],
    ['backend', describeBackend(device).summary],
  ]);
}
