export interface RouterLosses {
  /** mi, switch, z, concentration. */
  losses: [number, number, number, number];
  /** [3, E]: sum of p, number of choices with gate > 0, sum of gates. */
  stats: number[];
}

const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);
const mean = (values: number[]): number => (values.length === 0 ? 0 : sum(values) / values.length);
const normalised = (values: number[]): number[] => values.map((v) => v / Math.max(sum(values), 1e-12));

/** logits [N, E], experts and gates [N, K], mask [N] or nothing; straight from the formulas, in float64. */
export function routerLoss(
  logits: ArrayLike<number>,
  experts: ArrayLike<number>,
  gates: ArrayLike<number>,
  { N, E, K, mask }: { N: number; E: number; K: number; mask?: ArrayLike<number> | undefined },
): RouterLosses {
  const tokens = Array.from({ length: N }, (_, n) => n).filter((n) => !mask || mask[n] !== 0);
  const all = Array.from({ length: E }, (_, e) => e);
  const logSumExp = (n: number): number => Math.log(sum(all.map((e) => Math.exp(logits[n * E + e]!))));
  const logP = tokens.map((n) => all.map((e) => logits[n * E + e]! - logSumExp(n)));

  const mass = all.map((e) => sum(logP.map((row) => Math.exp(row[e]!))));
  const chosen = tokens.flatMap((n) => Array.from({ length: K }, (_, k) => n * K + k));
  const choices = all.map((e) => chosen.filter((r) => experts[r] === e && gates[r]! > 0).length);
  const gateMass = all.map((e) => sum(chosen.filter((r) => experts[r] === e).map((r) => gates[r]!)));

  const marginal = mass.map((m) => m / Math.max(tokens.length, 1));
  const negativeEntropy = logP.map((row) => sum(row.map((l) => Math.exp(l) * l)));
  const P = normalised(mass);
  const f = normalised(choices);
  return {
    losses: [
      sum(marginal.map((p) => p * Math.log(p + 1e-8))) - mean(negativeEntropy),
      E * sum(all.map((e) => P[e]! * f[e]!)),
      mean(tokens.map((n) => logSumExp(n) ** 2)),
      -sum(marginal.map((p) => (p === 0 ? 0 : p * Math.log(p)))),
    ],
    stats: [...mass, ...choices, ...gateMass],
  };
}
