/** Colours by quantile: one spike takes one colour and leaves the others to the rest. */

export const LEVELS = 5;

/**
 * @typedef {object} Step
 * @property {number} level  1 (least) to LEVELS
 * @property {number} from   the least count that was seen in it
 * @property {number} to     the greatest
 */

/**
 * Steps of about as many counts each; fewer steps where there are fewer different counts.
 * @param {number[]} counts  zero is no step's
 * @returns {Step[]}
 */
export function quantiles(counts) {
  const sorted = counts.filter((count) => count > 0).sort((a, b) => a - b);
  if (sorted.length === 0) {
    return [];
  }
  const uppers = new Set();
  for (let step = 1; step <= LEVELS; step++) {
    uppers.add(sorted[Math.ceil((sorted.length * step) / LEVELS) - 1]);
  }
  let from = sorted[0];
  return [...uppers].map((to, index, all) => {
    const step = { level: all.length === 1 ? 3 : 1 + Math.round((index * (LEVELS - 1)) / (all.length - 1)), from, to };
    from = sorted.find((count) => count > to) ?? to;
    return step;
  });
}

/**
 * @param {Step[]} steps
 * @param {number} count
 */
export function levelOf(steps, count) {
  return count > 0 ? (steps.find(({ to }) => count <= to)?.level ?? LEVELS) : 0;
}
