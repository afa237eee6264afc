import path from 'node:path';
import ts from 'typescript';

/** Source files by their path from the repository root, with forward slashes. */
export type Sources = ReadonlyMap<string, string>;

export const MAX_LINES = 450;

// lib -> native/napi -> native/ops -> native/core/backend.h -> native/cpu | cuda
const MAY_INCLUDE: Record<string, readonly string[]> = {
  core: ['core'],
  ops: ['core', 'ops'],
  cpu: ['core', 'cpu'],
  cuda: ['core', 'cuda'],
  napi: ['core', 'ops', 'napi'],
};
// Where the addon learns which backends there are and what the machine can do: the headers of the kernels that are
// not for kernels.
const BACKEND_PUBLIC = /^(cpu|cuda)\/(select|peak)\.h$/;
const NODE_HEADER = /^(node_api|node_api_types|js_native_api|js_native_api_types|napi|node|uv|v8)(-inl)?\.h$/;
const CUDA_HEADER =
  /^(cuda|cublas|cudnn|cub\/|thrust\/|cooperative_groups|mma\.h|nccl|nvrtc|device_launch_parameters)/;

const MODEL_AND_ABOVE = ['model', 'generation', 'training', 'cli', 'index'];
interface ImportRule {
  /** The other layers that may be imported; all if absent. */
  only?: readonly string[];
  never?: readonly string[];
}
// A layer is a directory of lib/ or a file in it. Nobody imports the command line, whatever stands here.
const MAY_IMPORT: Record<string, ImportRule> = {
  errors: { only: [] },
  native: { only: ['errors'] },
  scope: { only: ['native', 'tensor', 'errors'] },
  tensor: { only: ['native', 'scope', 'errors', 'autograd'] },
  autograd: { only: ['native', 'scope', 'tensor', 'errors'] },
  nn: { never: [...MODEL_AND_ABOVE, 'optimizer', 'data'] },
  losses: { never: [...MODEL_AND_ABOVE, 'optimizer', 'data'] },
  optimizer: { never: [...MODEL_AND_ABOVE, 'nn', 'data'] },
  io: { never: [...MODEL_AND_ABOVE, 'nn', 'losses', 'optimizer'] },
  data: { never: [...MODEL_AND_ABOVE, 'nn', 'losses', 'optimizer'] },
  model: { never: ['training', 'optimizer', 'cli', 'index'] },
  generation: { never: ['training', 'optimizer', 'cli', 'index'] },
  training: { never: ['cli', 'index'] },
};

function includesOf(source: string): { name: string; line: number }[] {
  return source.split('\n').flatMap((text, index) => {
    const match = /^\s*#\s*include\s*["<]([^">]+)[">]/.exec(text);
    return match?.[1] ? [{ name: match[1], line: index + 1 }] : [];
  });
}

/** The layer of a native or CUDA file, undefined for others. */
function nativeLayer(file: string): string | undefined {
  const [top, next] = file.split('/');
  if (top === 'cuda') return 'cuda';
  return top === 'native' ? next : undefined;
}

/** The layer that an include names: relative to its file, or from native/, which is on the include path. */
function includedLayer(file: string, name: string): string | undefined {
  if (name.startsWith('.')) return nativeLayer(path.posix.join(path.posix.dirname(file), name)) ?? name;
  const fromRoot = nativeLayer(name);
  if (fromRoot !== undefined) return fromRoot;
  const top = name.split('/')[0] ?? '';
  return name.includes('/') && top in MAY_INCLUDE ? top : undefined;
}

function checkIncludes(file: string, source: string): string[] {
  const layer = nativeLayer(file);
  if (layer === undefined || !/\.(cc|h|cu|cuh)$/.test(file)) return [];
  const allowed = MAY_INCLUDE[layer];
  if (!allowed) return [`${file}: no rule for the layer ${layer}`];
  return includesOf(source).flatMap(({ name, line }) => {
    if (layer === 'napi' && BACKEND_PUBLIC.test(name)) return [];
    const target = includedLayer(file, name);
    const against =
      (target !== undefined && !allowed.includes(target)) ||
      (NODE_HEADER.test(name) && layer !== 'napi') ||
      (CUDA_HEADER.test(name) && target === undefined && layer !== 'cuda');
    return against ? [`${file}:${line}: ${layer} must not include ${name}`] : [];
  });
}

/** The directory of lib/ that a file lies in, or its own name: lib/nn/linear.ts is nn, lib/tensor.ts is tensor. */
function libLayer(file: string): string | undefined {
  const [top, next] = file.split('/');
  return top === 'lib' && next ? next.replace(/\.(ts|js)$/, '') : undefined;
}

function isAddon(name: string): boolean {
  return name === 'bindings' || name.endsWith('.node') || /(^|\/)build(\/|$)/.test(name);
}

function checkImport(file: string, layer: string, name: string): boolean {
  if (!name.startsWith('.')) return layer === 'native' || !isAddon(name);
  if (isAddon(name)) return layer === 'native';
  const target = libLayer(path.posix.join(path.posix.dirname(file), name));
  if (target === layer) return true;
  if (target === undefined) return name.endsWith('.json');
  if (target === 'cli') return false;
  const { only, never } = MAY_IMPORT[layer] ?? {};
  return (only?.includes(target) ?? true) && !never?.includes(target);
}

function checkImports(file: string, source: string): string[] {
  const layer = libLayer(file);
  if (layer === undefined || !file.endsWith('.ts')) return [];
  return ts
    .preProcessFile(source, true, true)
    .importedFiles.filter(({ fileName }) => !checkImport(file, layer, fileName))
    .map(({ fileName, pos }) => {
      const line = source.slice(0, pos).split('\n').length;
      return `${file}:${line}: ${layer} must not import ${fileName}`;
    });
}

function checkLength(file: string, source: string): string[] {
  if (!/^(native|cuda|lib)\//.test(file)) return [];
  const lines = source.split('\n').length - (source.endsWith('\n') ? 1 : 0);
  return lines > MAX_LINES ? [`${file}: ${lines} lines, more than ${MAX_LINES}`] : [];
}

/** What in `sources` goes against the layers, or is too long: one sentence each, empty when all is well. */
export function findViolations(sources: Sources): string[] {
  return [...sources].flatMap(([file, source]) => [
    ...checkIncludes(file, source),
    ...checkImports(file, source),
    ...checkLength(file, source),
  ]);
}
