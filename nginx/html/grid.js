/**
 * The table. It follows the W3C's pattern for a grid (WAI-ARIA Authoring Practices): one tab
 * stop, arrow keys from cell to cell, Home and End to the ends of a row, with Ctrl of the grid.
 * It is built once for its days and its zone; after that only cells that changed are touched.
 */

import { dateTexts, offsetText, rangeText, two } from './time.js';

/** @typedef {import('./heatmap.js').Heatmap} Heatmap */
/** @typedef {import('./heatmap.js').Bucket} Bucket */
/** @typedef {import('./heatmap.js').Sum} Sum */

const HOURS = 24;

/** @param {HTMLTableElement} table  with an empty head, body and foot */
export function createGrid(table) {
  const head = /** @type {HTMLTableSectionElement} */ (table.tHead);
  const foot = /** @type {HTMLTableSectionElement} */ (table.tFoot);
  const body = table.tBodies[0];
  /** @type {HTMLTableCellElement[][]} the cells that keys move between: days, then the sums */
  let cells = [];
  /** @type {string[]} those of the rows before the sums */
  let dates = [];
  let shape = '';
  let row = 0;
  let column = 0;
  let moved = false;
  /** @type {WeakMap<Element, string>} what a cell was last painted from */
  const painted = new WeakMap();

  head.append(headRow());

  /** @param {Heatmap} map */
  function render(map) {
    const wanted = `${map.timeZone} ${map.days.map(({ date }) => date)}`;
    if (wanted !== shape) {
      build(map);
      shape = wanted;
    }
    map.days.forEach((day, index) => {
      const { long } = dateTexts(day.date);
      const tds = cells[index];
      for (let hour = 0; hour < HOURS; hour++) {
        paint(tds[hour], day.cells[hour], long, hour);
      }
      paintSum(tds[HOURS], day.sum, long);
    });
    const sums = cells[map.days.length];
    map.hourSums.forEach((sum, hour) => paintSum(sums[hour], sum, `All days, hour ${two(hour)}`));
    paintSum(sums[HOURS], map.sum, 'All days');
    if (!moved) {
      startAtCurrent(map);
    }
  }

  /** @param {Heatmap} map */
  function build(map) {
    const focused = body.contains(document.activeElement) || foot.contains(document.activeElement);
    const model = document.createElement('tr');
    model.append(document.createElement('th'));
    for (let index = 0; index <= HOURS; index++) {
      const td = document.createElement('td');
      td.tabIndex = -1;
      model.append(td);
    }
    const rows = map.days.map(({ date }) => {
      const tr = clone(model);
      const header = /** @type {HTMLTableCellElement} */ (tr.firstChild);
      header.scope = 'row';
      const time = document.createElement('time');
      time.dateTime = date;
      time.textContent = dateTexts(date).short;
      header.append(time);
      return tr;
    });
    const sums = clone(model);
    const header = /** @type {HTMLTableCellElement} */ (sums.firstChild);
    header.scope = 'row';
    header.textContent = 'All days';
    body.replaceChildren(...rows);
    foot.replaceChildren(sums);
    // Whoever is at a day stays at it when another one begins.
    const before = dates[row];
    const atSums = row > 0 && row === dates.length;
    dates = map.days.map(({ date }) => date);
    cells = [...rows, sums].map((tr) => [.../** @type {any} */ (tr.children)].slice(1));
    const same = dates.indexOf(before);
    row = atSums ? rows.length : same >= 0 ? same : Math.min(row, rows.length - 1);
    cells[row][column].tabIndex = 0;
    if (focused) {
      cells[row][column].focus();
    }
  }

  /** @param {Heatmap} map */
  function startAtCurrent(map) {
    map.days.forEach((day, index) => {
      const at = day.cells.findIndex((buckets) => buckets.some(({ current }) => current));
      if (at >= 0) {
        stopAt(index, at);
      }
    });
  }

  /**
   * @param {HTMLTableCellElement} td
   * @param {Bucket[]} buckets
   * @param {string} date
   * @param {number} hour
   */
  function paint(td, buckets, date, hour) {
    let key = '';
    for (const { state, count, level, partial, current } of buckets) {
      key += `${state} ${count} ${level} ${partial} ${current};`;
    }
    if (painted.get(td) === key) {
      return;
    }
    painted.set(td, key);
    td.setAttribute('aria-label', labelOf(buckets, date, hour));
    if (buckets.length === 1) {
      td.className = classOf(buckets[0]);
      td.textContent = textOf(buckets[0]);
      return;
    }
    td.className = buckets.length === 0 ? 'skipped' : 'repeated';
    td.replaceChildren(...buckets.map((bucket) => {
      const half = document.createElement('span');
      half.className = classOf(bucket);
      half.textContent = textOf(bucket);
      return half;
    }));
  }

  /**
   * @param {HTMLTableCellElement} td
   * @param {Sum} sum
   * @param {string} what
   */
  function paintSum(td, sum, what) {
    const key = `${sum.count} ${sum.whole}`;
    if (painted.get(td) === key) {
      return;
    }
    painted.set(td, key);
    td.className = 'sum';
    td.textContent = sum.count === 0 && !sum.whole ? '–' : short(sum.count);
    td.setAttribute('aria-label', `${what}: ${sum.whole ? events(sum.count) : `${events(sum.count)} live, the rest is not loaded`}`);
  }

  /**
   * @param {number} toRow
   * @param {number} toColumn
   */
  function stopAt(toRow, toColumn) {
    cells[row][column].tabIndex = -1;
    row = Math.min(Math.max(toRow, 0), cells.length - 1);
    column = Math.min(Math.max(toColumn, 0), HOURS);
    cells[row][column].tabIndex = 0;
    return cells[row][column];
  }

  /** @type {Record<string, (all: boolean) => [number, number]>} */
  const steps = {
    ArrowUp: () => [row - 1, column],
    ArrowDown: () => [row + 1, column],
    ArrowLeft: () => [row, column - 1],
    ArrowRight: () => [row, column + 1],
    Home: (all) => [all ? 0 : row, 0],
    End: (all) => [all ? cells.length - 1 : row, HOURS],
    PageUp: () => [row - 7, column],
    PageDown: () => [row + 7, column],
  };

  table.addEventListener('keydown', (event) => {
    const step = steps[event.key];
    if (!step || event.altKey || event.metaKey || event.shiftKey || !cells.length) {
      return;
    }
    event.preventDefault();
    const cell = stopAt(...step(event.ctrlKey));
    cell.focus();
    // Focus is content with a part of it, which may be behind the days.
    cell.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  });

  table.addEventListener('focusin', ({ target }) => {
    const at = cells.findIndex((tds) => tds.includes(/** @type {any} */ (target)));
    if (at >= 0) {
      moved = true;
      stopAt(at, cells[at].indexOf(/** @type {any} */ (target)));
    }
  });

  return {
    render,
    /** Where a narrow screen has to scroll, the current hour comes into view. */
    showCurrent() {
      const current = table.querySelector('.current');
      const frame = table.parentElement;
      if (current && frame) {
        frame.scrollLeft += current.getBoundingClientRect().right - frame.getBoundingClientRect().right + 16;
      }
    },
  };
}

/** @param {HTMLTableRowElement} model */
function clone(model) {
  return /** @type {HTMLTableRowElement} */ (model.cloneNode(true));
}

function headRow() {
  const tr = document.createElement('tr');
  const titles = ['Day', ...Array.from({ length: HOURS }, (_, hour) => two(hour)), 'Total'];
  tr.append(...titles.map((title) => {
    const th = document.createElement('th');
    th.scope = 'col';
    th.textContent = title;
    return th;
  }));
  return tr;
}

/** @param {Bucket} bucket */
function classOf({ state, count, level, partial, current }) {
  const look = state === 'count' && count === 0 ? 'zero' : state;
  return `${look}${level ? ` level-${level}` : ''}${partial ? ' partial' : ''}${current ? ' current' : ''}`;
}

/** @param {Bucket} bucket */
function textOf({ state, count }) {
  switch (state) {
    case 'count': return short(count);
    case 'live': return short(count);
    case 'unloaded': return '?';
    default: return '';
  }
}

/**
 * @param {Bucket[]} buckets
 * @param {string} date
 * @param {number} hour
 */
function labelOf(buckets, date, hour) {
  if (buckets.length === 0) {
    // Where they do so by half an hour, or at a quarter to, some of its minutes are there.
    return `${date}, ${two(hour)}:00: no hour begins here, the clocks go forward`;
  }
  const parts = buckets.map((bucket) => {
    const zone = buckets.length > 1 ? ` (${offsetText(bucket.place.offset)})` : '';
    return `${rangeText(bucket.place)}${zone}: ${sentenceOf(bucket)}`;
  });
  return `${date}, ${parts.join('; ')}`;
}

/** @param {Bucket} bucket */
function sentenceOf({ state, count, partial, current }) {
  const says = {
    count: events(count),
    live: `${events(count)} live, the rest is not loaded`,
    unloaded: 'not loaded',
    future: 'still to come',
    outside: 'before these days',
  }[state];
  return `${says}${partial ? ', counted from within this hour' : ''}${current ? ', the current hour' : ''}`;
}

const number = new Intl.NumberFormat('en-GB');

/** @param {number} count */
export function events(count) {
  return `${number.format(count)} ${count === 1 ? 'event' : 'events'}`;
}

/**
 * At most four characters, for a cell.
 * @param {number} count
 */
export function short(count) {
  let rest = count;
  for (const unit of ['', 'k', 'M', 'G', 'T', 'P']) {
    if (rest < (unit ? 1000 : 10_000)) {
      return unit && rest < 10 ? `${Math.floor(rest * 10) / 10}${unit}` : `${Math.floor(rest)}${unit}`;
    }
    rest /= 1000;
  }
  return '∞';
}
