/**
 * The colour scale: gives each count one of five levels, by quantiles, so that a spike takes one
 * level and does not flatten the others. The colours of the levels are in style.css.
 */

export const LEVELS = 5;

/**
 * @typedef {object} Step
 * @property {number} level  1 (lowest) to LEVELS
 * @property {number} from   the lowest count of this level
 * @property {number} to     the highest
 */

/**
 * Divides the counts into steps of about equal size; fewer steps if there are fewer distinct counts.
 * @param {number[]} counts  zeros are ignored
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
 * @returns {number} the level; 0 for a count of 0
 */
export function levelOf(steps, count) {
  return count > 0 ? (steps.find(({ to }) => count <= to)?.level ?? LEVELS) : 0;
}
