/**
 * The tooltip of the cell under the pointer or with the focus. It shows the cell's label, so it is
 * hidden from screen readers. Escape closes it, and the pointer may move onto it (WCAG 1.4.13).
 */

const GAP_PX = 8;
const HIDE_DELAY_MS = 120;

/**
 * @param {HTMLElement} box   the tooltip
 * @param {HTMLElement} area  contains the cells
 * @returns {() => void} updates the text and the position
 */
export function attachTooltip(box, area) {
  /** @type {Element | null} */
  let target = null;
  /** @type {number | undefined} */
  let hideTimer;

  /** @param {Element | null} cell */
  function show(cell) {
    clearTimeout(hideTimer);
    target = cell;
    refresh();
  }

  function refresh() {
    const label = target?.isConnected ? target.getAttribute('aria-label') : null;
    box.hidden = !label;
    if (!target || !label) {
      return;
    }
    if (box.textContent !== label) {
      box.textContent = label;
    }
    const at = target.getBoundingClientRect();
    const { width, height } = box.getBoundingClientRect();
    const left = Math.min(Math.max(GAP_PX, at.left + (at.width - width) / 2), innerWidth - width - GAP_PX);
    const above = at.top - height - GAP_PX;
    box.style.left = `${left}px`;
    box.style.top = `${above >= GAP_PX ? above : at.bottom + GAP_PX}px`;
  }

  function hideLater() {
    clearTimeout(hideTimer);
    hideTimer = setTimeout(() => show(focusedCell()), HIDE_DELAY_MS);
  }

  /** The cell with the keyboard focus, which keeps its tooltip. */
  function focusedCell() {
    const active = document.activeElement;
    return active && area.contains(active) && active.matches(':focus-visible') ? active : null;
  }

  /** @param {Event} event */
  const cellOf = (event) => (event.target instanceof Element ? event.target.closest('td') : null);

  area.addEventListener('pointerover', (event) => cellOf(event) && show(cellOf(event)));
  area.addEventListener('pointerleave', hideLater);
  box.addEventListener('pointerenter', () => clearTimeout(hideTimer));
  box.addEventListener('pointerleave', hideLater);
  area.addEventListener('focusin', (event) => show(cellOf(event)));
  area.addEventListener('focusout', () => show(null));
  document.addEventListener('keydown', (event) => event.key === 'Escape' && show(null));
  // The tooltip follows its cell.
  document.addEventListener('scroll', refresh, { capture: true, passive: true });
  return refresh;
}
