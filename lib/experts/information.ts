/** -sum p log p in nats of the distribution that non-negative weights make; 0 without any weight. */
export function entropy(weights: readonly number[]): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (!(total > 0)) return 0;
  return weights.reduce((sum, weight) => {
    const p = weight / total;
    return p > 0 ? sum - p * Math.log(p) : sum;
  }, 0);
}

/** The weights as a distribution; all 0 without any weight. */
export function shares(weights: readonly number[]): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => (total > 0 ? weight / total : 0));
}

/**
 * I(expert; domain) in nats, from weights per domain and expert, each domain counting the same: the entropy of the mean
 * distribution less the mean entropy. From 0 (all domains use the experts alike) to the log of the number of domains or
 * of experts (each domain has experts of its own). Domains without weight are left out.
 */
export function domainInformation(weights: readonly (readonly number[])[]): number {
  const used = weights.map(shares).filter((p) => p.some((share) => share > 0));
  if (used.length < 2) return 0;
  const mean = (used[0] as number[]).map(
    (_, e) => used.reduce((sum, p) => sum + (p[e] as number), 0) / used.length,
  );
  const within = used.reduce((sum, p) => sum + entropy(p), 0) / used.length;
  return Math.max(0, entropy(mean) - within);
}
