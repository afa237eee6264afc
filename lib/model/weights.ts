import { copyInto, fill, narrow, reshape } from '../autograd/index.js';
import { CheckpointError } from '../errors.js';
import type { TensorSource, TensorToWrite, SafetensorsDtype } from '../io/safetensors.js';
import { native } from '../native/load.js';
import { scope } from '../scope.js';
import { empty, itemSize, type DType, type Tensor } from '../tensor.js';

const fileDTypes: Partial<Record<SafetensorsDtype, DType>> = { F64: 'f64', F32: 'f32', BF16: 'bf16' };
const names = { f64: 'F64', f32: 'F32', bf16: 'BF16' } as const;

/** Elements that are read, converted or written at a time. */
const CHUNK = 4 << 20;

/** Released MoLM files also hold these buffers of the attention, with or without the prefix. */
const BUFFER = /^(transformer\.)?h\.\d+\.attn\.(mask|cum_weight)$/;

/** The dtype that most bytes of a checkpoint have. @throws CheckpointError when it is not one that a model can have. */
export function dominantDType(source: TensorSource): 'f64' | 'f32' | 'bf16' {
  const bytes = new Map<SafetensorsDtype, number>();
  for (const [name, { dtype, begin, end }] of source.entries) {
    if (!BUFFER.test(name)) bytes.set(dtype, (bytes.get(dtype) ?? 0) + end - begin);
  }
  const [dominant] = [...bytes].sort((a, b) => b[1] - a[1]);
  const dtype = dominant && fileDTypes[dominant[0]];
  if (dtype === 'f64' || dtype === 'f32' || dtype === 'bf16') return dtype;
  throw new CheckpointError(`the weights are ${dominant?.[0] ?? 'absent'}, expected F64, F32 or BF16`);
}

/**
 * Fills parameters from a checkpoint, converting dtypes. Everything is checked before anything is changed.
 * @param ignore names in the checkpoint that may be passed over, besides the known buffers.
 * @throws CheckpointError that lists missing and unexpected tensors, and those of another shape or an unusable dtype.
 */
export async function loadParameters(
  parameters: ReadonlyMap<string, Tensor>,
  source: TensorSource,
  where: string,
  ignore: (name: string) => boolean = () => false,
): Promise<void> {
  const problems = [...differences(parameters, source, ignore)];
  if (problems.length > 0) throw new CheckpointError(`${where}: nothing was loaded: ${problems.join('; ')}`);
  for (const [name, parameter] of parameters) await fillParameter(name, parameter, source);
}

function* differences(
  parameters: ReadonlyMap<string, Tensor>,
  source: TensorSource,
  ignore: (name: string) => boolean,
): Iterable<string> {
  const missing = [...parameters.keys()].filter((name) => !source.entries.has(name));
  if (missing.length > 0) yield `missing ${list(missing)}`;
  const unexpected = [...source.entries.keys()].filter(
    (name) => !parameters.has(name) && !BUFFER.test(name) && !ignore(name),
  );
  if (unexpected.length > 0) yield `unexpected ${list(unexpected)}`;
  for (const [name, parameter] of parameters) {
    const entry = source.entries.get(name);
    if (!entry) continue;
    if (!fileDTypes[entry.dtype]) yield `${name} has dtype ${entry.dtype}, expected F64, F32 or BF16`;
    if (entry.shape.join() !== parameter.shape.join()) {
      yield `${name} has shape [${entry.shape.join(', ')}], expected [${parameter.shape.join(', ')}]`;
    }
  }
}

function list(items: readonly string[]): string {
  const shown = items.slice(0, 8).join(', ');
  return items.length > 8 ? `${shown} and ${items.length - 8} more` : shown;
}

async function fillParameter(name: string, parameter: Tensor, source: TensorSource): Promise<void> {
  const entry = source.entries.get(name);
  const dtype = entry && fileDTypes[entry.dtype];
  if (!dtype) throw new CheckpointError(`${name}: not in the checkpoint`);
  const width = itemSize(dtype);
  const buffer = new Uint8Array(Math.min(CHUNK, parameter.numel) * width);
  // Pieces leave a parameter that a failed step has spoiled as it is; only being written whole makes it usable again.
  fill(parameter, 0);
  for (let start = 0; start < parameter.numel; start += CHUNK) {
    const count = Math.min(CHUNK, parameter.numel - start);
    const bytes = buffer.subarray(0, count * width);
    await source.readInto(name, bytes, start * width);
    // Whatever is enqueued holds memory: a disk faster than the stream must not run ahead of it.
    await native.synchronize();
    if (dtype === parameter.dtype) native.write(parameter.id, bytes, start * width);
    else convertInto(parameter, start, bytes, dtype);
  }
  parameter.version.count++;
}

function convertInto(parameter: Tensor, start: number, bytes: Uint8Array, dtype: DType): void {
  const count = bytes.byteLength / itemSize(dtype);
  scope(() => {
    const staged = empty([count], dtype, parameter.device);
    native.write(staged.id, bytes, 0);
    copyInto(narrow(reshape(parameter.detach(), [parameter.numel]), start, count), staged);
  });
}

/** How a parameter is written: its bytes as they are, a chunk at a time. */
export function tensorToWrite(name: string, parameter: Tensor): TensorToWrite {
  const dtype = names[parameter.dtype as keyof typeof names];
  const width = itemSize(parameter.dtype);
  const { numel, shape } = parameter;
  return {
    name,
    dtype,
    shape: [...shape],
    byteLength: numel * width,
    async *chunks() {
      const buffer = new Uint8Array(Math.min(CHUNK, numel) * width);
      for (let start = 0; start < numel; start += CHUNK) {
        const count = Math.min(CHUNK, numel - start);
        const flat = reshape(parameter.detach(), [numel]);
        const part = narrow(flat, start, count);
        flat.dispose();
        yield await part.bytes(buffer.subarray(0, count * width));
        part.dispose();
      }
    },
  };
}
