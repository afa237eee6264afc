import type { Command } from 'commander';
import { integer, printJson } from './command.js';

interface TokenizerFlags {
  vocabSize: number;
  out: string;
  textField?: string;
  delimiter?: string;
  specialTokens?: string[];
  json?: boolean;
}

export function addTokenizerCommand(program: Command): void {
  const tokenizer = program.command('tokenizer').description('Make tokenizers.');
  tokenizer
    .command('train')
    .description('Train a byte-level BPE tokenizer on text: tokenizer.json and tokenizer_config.json.')
    .argument('<file...>', 'text or JSONL files, directories or patterns (also .gz, .zst)')
    .requiredOption('--out <dir>', 'the directory to write to')
    .option('--vocab-size <n>', 'how many ids: special tokens, 256 bytes and merges', integer(257), 8192)
    .option('--special-tokens <token...>', 'the first one ends texts (default: <|endoftext|>)')
    .option('--text-field <name>', 'the field of a JSON line that holds the text (default: text)')
    .option('--json', 'print a JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ moduleformer tokenizer train corpus/ --vocab-size 4096 --out tokenizer/
  $ moduleformer tokenizer train 'pages/*.jsonl.gz' --text-field content --out tokenizer/`,
    )
    .action(async (files: string[], flags: TokenizerFlags) => {
      const { trainTokenizer } = await import('../data/train-tokenizer.js');
      const { readDocuments } = await import('../data/corpus.js');
      const { vocabSize, out, textField, specialTokens } = flags;
      async function* texts(): AsyncGenerator<string> {
        const options = { files, ...(textField === undefined ? {} : { textField }) };
        for await (const { text } of readDocuments(options)) yield text;
      }
      const trained = await trainTokenizer({
        texts: texts(),
        vocabSize,
        ...(specialTokens === undefined ? {} : { specialTokens }),
      });
      await trained.save(out);
      if (flags.json)
        printJson({ out, vocabSize: trained.vocabSize, eosId: trained.eosId, hash: trained.hash });
      else process.stdout.write(`${trained.vocabSize} ids in ${out}\n`);
    });
}
