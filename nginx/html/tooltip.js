/**
 * A text beside the cell that is pointed at or focused. It repeats the cell's label, so it is
 * no news to a screen reader; Escape closes it, and the pointer may move onto it.
 */

const GAP = 8;
const LINGER = 120;

/**
 * @param {HTMLElement} box
 * @param {HTMLElement} area  where the cells are
 * @returns {() => void} says its text anew
 */
export function attachTooltip(box, area) {
  /** @type {Element | null} */
  let shown = null;
  /** @type {number | undefined} */
  let leaving;

  /** @param {Element | null} cell */
  function show(cell) {
    clearTimeout(leaving);
    shown = cell;
    refresh();
  }

  function refresh() {
    const label = shown?.isConnected ? shown.getAttribute('aria-label') : null;
    box.hidden = !label;
    if (!shown || !label) {
      return;
    }
    if (box.textContent !== label) {
      box.textContent = label;
    }
    const at = shown.getBoundingClientRect();
    const { width, height } = box.getBoundingClientRect();
    const left = Math.min(Math.max(GAP, at.left + (at.width - width) / 2), innerWidth - width - GAP);
    const above = at.top - height - GAP;
    box.style.left = `${left}px`;
    box.style.top = `${above >= GAP ? above : at.bottom + GAP}px`;
  }

  function leave() {
    clearTimeout(leaving);
    leaving = setTimeout(() => show(focused()), LINGER);
  }

  /** The cell that has the keyboard's focus, which keeps its tooltip. */
  function focused() {
    const active = document.activeElement;
    return active && area.contains(active) && active.matches(':focus-visible') ? active : null;
  }

  /** @param {Event} event */
  const cellOf = (event) => (event.target instanceof Element ? event.target.closest('td') : null);

  area.addEventListener('pointerover', (event) => cellOf(event) && show(cellOf(event)));
  area.addEventListener('pointerleave', leave);
  box.addEventListener('pointerenter', () => clearTimeout(leaving));
  box.addEventListener('pointerleave', leave);
  area.addEventListener('focusin', (event) => show(cellOf(event)));
  area.addEventListener('focusout', () => show(null));
  document.addEventListener('keydown', (event) => event.key === 'Escape' && show(null));
  // Focus may scroll, and the text goes along.
  document.addEventListener('scroll', refresh, { capture: true, passive: true });
  return refresh;
}
