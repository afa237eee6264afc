import { dtypes, rowMaps, unaryKinds, type FloatDType } from '../native/binding.js';
import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { isGradEnabled, record } from './engine.js';
import type { RoutingPlan } from './routing_plan.js';

/** Activations that a product can apply as it writes its result. */
export type Activation = 'gelu' | 'geluNew' | 'silu' | 'relu';

/** What may follow the product of `linear`. */
export interface LinearOptions {
  /** Applied to the result. */
  activation?: Activation;
  /** Default: that of x. 'f32' is possible for bf16. */
  outputDType?: FloatDType;
}

const needsGradient = (...tensors: (Tensor | null)[]): boolean =>
  isGradEnabled() && tensors.some((tensor) => tensor?.requiresGrad);

const activationIndex = (activation: Activation | undefined): number | null =>
  activation ? unaryKinds.indexOf(activation) : null;

/** dy times the activation's derivative at the value before it. */
function throughActivation(dy: Tensor, activation: Activation | undefined, pre: Tensor | undefined): Tensor {
  if (!activation || !pre) return dy;
  return wrap(native.unaryBackward(unaryKinds.indexOf(activation), pre.id, dy.id));
}

/**
 * y = activation(x W^T + b): x [.., in], weight [out, in], bias [out] or null -> [.., out]. Sums are in f32 (f64 for f64).
 * @throws ShapeError, DTypeError when the arguments do not fit each other.
 */
export function linear(
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  { activation, outputDType }: LinearOptions = {},
): Tensor {
  const dtype = x.dtype;
  const output = dtypes.indexOf(outputDType ?? dtype);
  const wanted = needsGradient(x, weight, bias);
  const kind = activationIndex(activation);
  const [yId, preId] = native.linear(x.id, weight.id, bias?.id ?? null, kind, wanted, output);
  const y = wrap(yId);
  const pre = preId === null ? undefined : wrap(preId);
  record([y], {
    name: 'linear',
    inputs: [x, weight, bias],
    saved: pre ? [x, weight, pre] : [x, weight],
    backward: ([dout], [x, weight, pre], [wantX, wantWeight, wantBias]) => {
      const wide = throughActivation(dout as Tensor, activation, pre);
      const dy = wide.dtype === dtype ? wide : wrap(native.cast(wide.id, dtypes.indexOf(dtype)));
      return [
        wantX ? wrap(native.linearInputGrad(dy.id, (weight as Tensor).id)) : null,
        wantWeight ? wrap(native.linearWeightGrad((x as Tensor).id, dy.id)) : null,
        wantBias ? wrap(native.sum(dy.id, 0, dy.shape.length - 1)) : null,
      ];
    },
  });
  return y;
}

/** How the rows of a matrix lie in memory: by expert, by slot n*K + k, or by token n (then each serves K rows). */
export type RowMap = (typeof rowMaps)[number];

/** Where the rows of a grouped product come from and go to, and what follows it. */
export interface GroupedGemmOptions {
  /** How the rows of x lie: by token [N, in], by slot or sorted by expert [R, in]. */
  inputRows: RowMap;
  /** How the rows of the result lie. */
  outputRows: Exclude<RowMap, 'token'>;
  /** Applied to the result. */
  activation?: Activation;
}

/**
 * Each routed row times the weight of its expert: x [R, in] ([N, in] with rows by token), w [E, in, out] -> [R, out].
 * Experts without rows cost nothing; their gradient is 0.
 * @throws ShapeError, DTypeError when the arguments do not fit each other.
 */
export function groupedGemm(
  x: Tensor,
  w: Tensor,
  plan: RoutingPlan,
  { inputRows, outputRows, activation }: GroupedGemmOptions,
): Tensor {
  const { topK } = plan;
  const [xRows, outRows] = [rowMaps.indexOf(inputRows), rowMaps.indexOf(outputRows)];
  const kind = activationIndex(activation);
  const wanted = needsGradient(x, w);
  const [yId, preId] = native.groupedGemm(
    x.id,
    w.id,
    plan.order.id,
    plan.offsets.id,
    topK,
    xRows,
    outRows,
    false,
    kind,
    wanted,
    null,
  );
  const y = wrap(yId);
  const pre = preId === null ? undefined : wrap(preId);
  record([y], {
    name: 'groupedGemm',
    inputs: [x, w],
    saved: [x, w, plan.order, plan.offsets, ...(pre ? [pre] : [])],
    backward: ([dout], [x, w, order, offsets, pre], [wantX, wantW]) => {
      const dy = throughActivation(dout as Tensor, activation, pre);
      const [o, f] = [(order as Tensor).id, (offsets as Tensor).id];
      return [
        wantX ? inputGrad(dy, w as Tensor, o, f, topK, inputRows, outRows) : null,
        wantW
          ? wrap(native.groupedGemmWeightGrad((x as Tensor).id, dy.id, o, f, topK, xRows, outRows))
          : null,
      ];
    },
  });
  return y;
}

/** dx = dy W^T. Rows by token received topK rows each, which are added up in the order of the slots. */
function inputGrad(
  dy: Tensor,
  w: Tensor,
  order: number,
  offsets: number,
  topK: number,
  inputRows: RowMap,
  dyRows: number,
): Tensor {
  const dxRows = rowMaps.indexOf(inputRows === 'token' ? 'slot' : inputRows);
  const [id] = native.groupedGemm(dy.id, w.id, order, offsets, topK, dyRows, dxRows, true, null, false, null);
  const dx = wrap(id);
  return inputRows === 'token' ? wrap(native.combine(dx.id, null, topK)) : dx;
}

/**
 * activation(x w1) w2 for each of a token's K experts: x [N, D], w1 [E, D, F], w2 [E, F, D] -> [R, D] in slot rows. The
 * same as two grouped GEMMs; in backward the activation's derivative is applied inside the GEMM that needs it.
 * @throws ShapeError, DTypeError when the arguments do not fit each other.
 */
export function expertMlp(
  x: Tensor,
  w1: Tensor,
  w2: Tensor,
  plan: RoutingPlan,
  activation: Activation,
): Tensor {
  const { topK } = plan;
  const [sorted, slot, token] = [
    rowMaps.indexOf('sorted'),
    rowMaps.indexOf('slot'),
    rowMaps.indexOf('token'),
  ];
  const [order, offsets] = [plan.order.id, plan.offsets.id];
  const kind = activationIndex(activation);
  const wanted = needsGradient(x, w1, w2);
  const hidden = native.groupedGemm(
    x.id,
    w1.id,
    order,
    offsets,
    topK,
    token,
    sorted,
    false,
    kind,
    wanted,
    null,
  );
  const [h, pre] = hidden.map((id) => (id === null ? null : wrap(id))) as [Tensor, Tensor | null];
  const [yId] = native.groupedGemm(h.id, w2.id, order, offsets, topK, sorted, slot, false, null, false, null);
  const y = wrap(yId);
  record([y], {
    name: 'expertMlp',
    inputs: [x, w1, w2],
    saved: pre ? [x, w1, w2, plan.order, plan.offsets, h, pre] : [],
    backward: ([dout], saved, [wantX, wantW1, wantW2]) => {
      const dy = (dout as Tensor).id;
      type Ids = [number, number, number, number, number, number, number];
      const [xId, , w2Id, o, f, hId, preId] = saved.map(({ id }) => id) as Ids;
      const dw2 = wantW2 ? wrap(native.groupedGemmWeightGrad(hId, dy, o, f, topK, sorted, slot)) : null;
      if (!wantX && !wantW1) return [null, null, dw2];
      const [dhId] = native.groupedGemm(dy, w2Id, o, f, topK, slot, sorted, true, kind, false, preId);
      const dh = wrap(dhId);
      return [
        wantX ? inputGrad(dh, saved[1] as Tensor, o, f, topK, 'token', sorted) : null,
        wantW1 ? wrap(native.groupedGemmWeightGrad(xId, dh.id, o, f, topK, token, sorted)) : null,
        dw2,
      ];
    },
  });
  h.dispose();
  pre?.dispose();
  return y;
}
