import { AutogradError, ShapeError } from '../errors.js';
import { native } from '../native/load.js';
import { keep, scope } from '../scope.js';
import { empty, Tensor, wrap, type RowRange } from '../tensor.js';
import { binaryKinds, type Handle } from '../native/binding.js';

/** Gradients of the outputs (null where none arrived) to gradients of the inputs (null where there is none). */
export type BackwardRule = (
  gradients: (Tensor | null)[],
  saved: Tensor[],
  needs: readonly boolean[],
) => (Tensor | null)[];

interface Saved {
  tensor: Tensor;
  version: number;
  /** Whether the node made an alias that it must free. */
  owned: boolean;
}

interface Edge {
  node: Node | null;
  index: number;
  leaf: Tensor | null;
}

/** One recorded operation. It owns what it saved and frees it as backward unwinds. */
export interface Node {
  readonly name: string;
  readonly sequence: number;
  readonly edges: (Edge | null)[];
  readonly outputs: number;
  /** Outputs that are not disposed, and nodes that used one. */
  references: number;
  saved: Saved[];
  rule: BackwardRule | null;
}

let gradEnabled = true;
let sequence = 0;

/** Whether operations are being recorded for backward. */
export function isGradEnabled(): boolean {
  return gradEnabled;
}

/**
 * Runs the synchronous `fn` without recording: nothing computed in it requires a gradient.
 * @throws AutogradError when `fn` returns a promise.
 */
export function noGrad<T>(fn: () => T): T {
  return withGrad(false, fn);
}

/** @internal As noGrad, with recording on: for recomputation in backward. */
export function enableGrad<T>(fn: () => T): T {
  return withGrad(true, fn);
}

function withGrad<T>(enabled: boolean, fn: () => T): T {
  const before = gradEnabled;
  gradEnabled = enabled;
  try {
    const result = fn();
    if (result instanceof Promise) {
      result.catch(() => undefined);
      throw new AutogradError('noGrad: the function returned a promise, expected a synchronous function');
    }
    return result;
  } finally {
    gradEnabled = before;
  }
}

export interface Recording {
  name: string;
  /** What a gradient may flow to. */
  inputs: readonly (Tensor | null | undefined)[];
  /** What backward reads: inputs, outputs or others. Changing them in place before backward is an error. */
  saved?: readonly Tensor[];
  backward: BackwardRule;
}

/** @internal Wraps the outputs of an op; when a gradient can flow, records its rule. */
export function record(outputs: readonly Tensor[], recording: Recording): void {
  if (!gradEnabled || !recording.inputs.some((input) => input?.requiresGrad)) return;
  const node: Node = {
    name: recording.name,
    sequence: sequence++,
    edges: recording.inputs.map((input) => (input?.requiresGrad ? edgeTo(input) : null)),
    outputs: outputs.length,
    references: outputs.length,
    saved: (recording.saved ?? []).map(save),
    rule: recording.backward,
  };
  for (const edge of node.edges) if (edge?.node) edge.node.references++;
  outputs.forEach((output, index) => {
    output.node = node;
    output.outputIndex = index;
  });
}

/** @internal For the usual op with one output: wraps its handle and records its rule. */
export function apply(
  id: Handle,
  recording: Omit<Recording, 'saved'> & { saved?: (y: Tensor) => readonly Tensor[] },
): Tensor {
  const output = wrap(id);
  record([output], {
    name: recording.name,
    inputs: recording.inputs,
    backward: recording.backward,
    saved: gradEnabled && recording.saved ? recording.saved(output) : [],
  });
  return output;
}

function edgeTo(input: Tensor): Edge {
  return input.node
    ? { node: input.node, index: input.outputIndex, leaf: null }
    : { node: null, index: 0, leaf: input };
}

function save(saved: Tensor): Saved {
  saved.assertLive();
  // A leaf outlives the step anyway; anything else may be freed by a scope before backward, so the node takes an alias.
  if (saved.requiresGrad && !saved.node) return { tensor: saved, version: saved.version.count, owned: false };
  const alias = new Tensor(native.alias(saved.id), saved.version);
  native.track(alias.id, alias);
  return { tensor: alias, version: saved.version.count, owned: true };
}

function free(node: Node): void {
  for (const { tensor: saved, owned } of node.saved) if (owned) saved.dispose();
  node.saved = [];
  node.rule = null;
}

/**
 * @internal An output was disposed. A node that no output and no other node holds can take part in no backward any more:
 * it frees what it saved, and lets go of those before it.
 */
export function release(node: Node): void {
  const waiting = [node];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    if (--next.references !== 0) continue;
    free(next);
    for (const edge of next.edges) if (edge?.node) waiting.push(edge.node);
  }
}

/** @internal The gradient of a scalar is added to `.grad` of every leaf it was computed from. */
export function backward(root: Tensor): void {
  root.assertLive();
  if (root.numel !== 1) {
    throw new ShapeError(`backward: the tensor has shape [${root.shape.join(', ')}], expected a scalar`);
  }
  noGrad(() =>
    scope(() => {
      // 1, but NaN when the root is not finite and failed when it failed: then no gradient may look usable.
      backwardFrom([root], [wrap(native.affine(root.id, 0, 1))]);
    }),
  );
}

/** @internal As backward, from several tensors with a given gradient each; takes over the gradients. */
export function backwardFrom(roots: readonly Tensor[], gradients: readonly Tensor[]): void {
  for (const root of roots) {
    root.assertLive();
    if (!root.node) {
      throw new AutogradError('backward: the tensor was not computed from anything that requires a gradient');
    }
  }
  noGrad(() => scope(() => unwind(roots, gradients)));
}

function reachable(roots: readonly Node[]): Node[] {
  const nodes = new Set<Node>(roots);
  for (const node of nodes) for (const edge of node.edges) if (edge?.node) nodes.add(edge.node);
  // An input's node was always recorded before: falling sequence is a topological order, the same on every run.
  return [...nodes].sort((a, b) => b.sequence - a.sequence);
}

function unwind(roots: readonly Tensor[], gradients: readonly Tensor[]): void {
  const pending = new Map<Node, (Tensor | null)[]>();
  const slots = (node: Node): (Tensor | null)[] => {
    let incoming = pending.get(node);
    if (!incoming) pending.set(node, (incoming = Array<Tensor | null>(node.outputs).fill(null)));
    return incoming;
  };
  roots.forEach((root, i) => accumulate(slots(root.node as Node), root.outputIndex, gradients[i] as Tensor));
  for (const node of reachable(roots.map((root) => root.node as Node))) {
    const incoming = pending.get(node);
    pending.delete(node);
    if (!node.rule) {
      throw new AutogradError(
        `backward: the graph through '${node.name}' was already used by a backward and is freed`,
      );
    }
    if (incoming) step(node, incoming, slots);
    free(node);
  }
}

function step(node: Node, incoming: (Tensor | null)[], slots: (node: Node) => (Tensor | null)[]): void {
  const rule = node.rule as BackwardRule;
  for (const { tensor: saved, version } of node.saved) {
    if (saved.version.count !== version) {
      throw new AutogradError(`backward: a tensor that '${node.name}' saved was changed in place since`);
    }
  }
  const needs = node.edges.map((edge) => edge !== null);
  const outgoing = scope(() =>
    rule(
      incoming,
      node.saved.map(({ tensor: saved }) => saved),
      needs,
    ),
  );
  const memory = new Set(incoming.filter((g) => g !== null).map((g) => g.version));
  const handedOut = new Set<Tensor | null>(incoming);
  node.edges.forEach((edge, i) => {
    let gradient = outgoing[i];
    if (!edge || !gradient) return;
    // Each receiver frees its gradient when it is done, so no two may hold one object.
    if (handedOut.has(gradient)) gradient = gradient.detach();
    handedOut.add(gradient);
    const shared = memory.has(gradient.version);
    memory.add(gradient.version);
    if (edge.leaf) accumulateLeaf(edge.leaf, gradient, shared);
    else accumulate(slots(edge.node as Node), edge.index, gradient);
  });
  for (const gradient of incoming) gradient?.dispose();
}

function accumulate(gradients: (Tensor | null)[], index: number, gradient: Tensor): void {
  const before = gradients[index];
  if (!before) {
    gradients[index] = gradient;
    return;
  }
  gradients[index] = wrap(native.binary(binaryKinds.indexOf('add'), before.id, gradient.id));
  before.dispose();
  gradient.dispose();
}

function accumulateLeaf(leaf: Tensor, given: Tensor, isShared: boolean): void {
  const rows = leaf.trainableRows;
  const gradient = rows ? rowsOnly(given, rows) : given;
  const shared = isShared && !rows;
  if (leaf.grad) {
    native.accumulate(gradient.id, leaf.grad.id, 1);
    leaf.grad.version.count++;
    gradient.dispose();
    return;
  }
  // Later micro-batches add to it in place, so it must not share memory with another gradient.
  leaf.grad = shared ? wrap(native.affine(gradient.id, 1, 0)) : gradient;
  if (shared) gradient.dispose();
  keep(leaf.grad);
}

/** A copy of the gradient in which all but some rows are 0; the gradient is freed. */
function rowsOnly(gradient: Tensor, [first, end]: RowRange): Tensor {
  const result = empty(gradient.shape, gradient.dtype, gradient.device);
  native.fill(result.id, 0);
  const rows = (x: Tensor): Tensor => wrap(native.narrow(x.id, first, end - first));
  native.copyInto(rows(gradient).id, rows(result).id);
  gradient.dispose();
  return result;
}
