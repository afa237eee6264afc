import { AutogradError } from './errors.js';
import { native } from './native/load.js';
import type { Tensor } from './tensor.js';

const scopes: Set<Tensor>[] = [];

/** @internal A new tensor belongs to the innermost scope, or to the garbage collector where there is none. */
export function adopt(tensor: Tensor): void {
  const scope = scopes.at(-1);
  if (scope) scope.add(tensor);
  else native.track(tensor.id, tensor);
}

/** @internal Takes a tensor out of every scope: it lives until it is disposed or collected. */
export function keep(tensor: Tensor): void {
  for (const scope of scopes) scope.delete(tensor);
  if (!tensor.isDisposed) native.track(tensor.id, tensor);
}

function collect(value: unknown, into: Set<object>): void {
  if (typeof value !== 'object' || value === null || into.has(value) || ArrayBuffer.isView(value)) return;
  into.add(value);
  if (isTensor(value)) return;
  if (value instanceof Map) for (const item of value.values()) collect(item, into);
  else if (Symbol.iterator in value) for (const item of value as Iterable<unknown>) collect(item, into);
  else for (const item of Object.values(value)) collect(item, into);
}

function isTensor(value: object): value is Tensor {
  return 'id' in value && 'outputIndex' in value && 'node' in value;
}

/**
 * Runs `fn` and frees the tensors made meanwhile, except those it returns (in arrays, maps and objects too), gradients
 * and leaves that require one. `fn` is synchronous: an `await` inside would mix two callers.
 * @throws AutogradError when `fn` returns a promise.
 */
export function scope<T>(fn: () => T): T {
  const mine = new Set<Tensor>();
  scopes.push(mine);
  let result: T | undefined;
  try {
    result = fn();
    if (result instanceof Promise) {
      result.catch(() => undefined);
      throw new AutogradError('scope: the function returned a promise, expected a synchronous function');
    }
    const escaping = new Set<object>();
    collect(result, escaping);
    for (const tensor of mine) {
      if (!escaping.has(tensor) && !isParameter(tensor)) continue;
      mine.delete(tensor);
      promote(tensor);
    }
    return result;
  } finally {
    scopes.pop();
    for (const tensor of mine) tensor.dispose();
  }
}

function isParameter(tensor: Tensor): boolean {
  return tensor.requiresGrad && tensor.node === null;
}

function promote(tensor: Tensor): void {
  const parent = scopes.at(-2);
  if (tensor.isDisposed) return;
  if (parent) parent.add(tensor);
  else native.track(tensor.id, tensor);
}
