import { native } from '../native/load.js';
import { wrap, type Tensor } from '../tensor.js';
import { cast } from './elementwise.js';
import { record } from './engine.js';

/**
 * The mean over the labels that count of -log softmax(logits)[label]: logits [.., V], labels [..] i32 or i64, -100 to
 * ignore one -> a scalar, f32 (f64 for f64 logits); loss and gradients are 0 without any label that counts. Another
 * label outside [0, V) is a KernelError where the result is waited for.
 */
export function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  const wide = logits.dtype === 'bf16' ? cast(logits, 'f32') : logits;
  const [lossId, lseId, countId] = native.crossEntropy(wide.id, labels.id);
  const loss = wrap(lossId);
  record([loss], {
    name: 'crossEntropy',
    inputs: [wide],
    saved: [wide, labels, wrap(lseId), wrap(countId)],
    backward: ([dloss], saved) => {
      const [logits, labels, lse, count] = saved as [Tensor, Tensor, Tensor, Tensor];
      return [
        wrap(native.crossEntropyBackward(logits.id, labels.id, lse.id, count.id, (dloss as Tensor).id)),
      ];
    },
  });
  return loss;
}
