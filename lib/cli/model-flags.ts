import { Option, type Command } from 'commander';
import { integer } from './command.js';

/** How a command loads a model, and where it computes. */
export interface ModelFlags {
  tokenizer?: string;
  dtype?: 'f32' | 'bf16' | 'f64';
  device: 'cpu' | 'cuda';
  threads?: number;
}

export function dtypeOption(): Option {
  return new Option('--dtype <type>', "of the parameters (default: the checkpoint's)").choices([
    'f32',
    'bf16',
    'f64',
  ]);
}

export function quantizeOption(): Option {
  return new Option('--quantize <type>', 'load the weights in 8 bits').choices(['i8']);
}

export function addModelFlags(command: Command): Command {
  return command
    .option('--tokenizer <path>', "a tokenizer.json or its directory (default: the checkpoint's)")
    .addOption(dtypeOption())
    .addOption(new Option('--device <name>', 'where to compute').choices(['cpu', 'cuda']).default('cpu'))
    .option('--threads <n>', 'CPU threads (default: all cores)', integer(1));
}
