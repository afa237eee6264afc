import { dtypes, rowMaps, unaryKinds, type FloatDType } from '../native/binding.js';
import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { isGradEnabled, record } from './engine.js';
import type { RoutingPlan } from './routing_plan.js';

export type Activation = 'gelu' | 'geluNew' | 'silu' | 'relu';

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

export interface GroupedGemmOptions {
  inputRows: RowMap;
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
