/**
 * Draws the table. It follows the grid pattern of the WAI-ARIA Authoring Practices: one tab stop,
 * arrow keys move from cell to cell, Home and End to the ends of a row, with Ctrl of the grid.
 * The table is rebuilt when its days or its time zone change; otherwise only cells that changed
 * are updated.
 */

import { dateTexts, offsetText, rangeText, twoDigits } from './time.js';

/** @typedef {import('./heatmap.js').Heatmap} Heatmap */
/** @typedef {import('./heatmap.js').Bucket} Bucket */
/** @typedef {import('./heatmap.js').Sum} Sum */

const HOURS = 24;

/** @param {HTMLTableElement} table  with an empty head, body and foot */
export function createGrid(table) {
  const head = /** @type {HTMLTableSectionElement} */ (table.tHead);
  const foot = /** @type {HTMLTableSectionElement} */ (table.tFoot);
  const body = table.tBodies[0];
  /** @type {HTMLTableCellElement[][]} the cells of each row: the days, then the sums */
  let cells = [];
  /** @type {string[]} the dates of the rows */
  let dates = [];
  let layout = '';
  let row = 0;
  let column = 0;
  /** Whether the viewer has moved the tab stop. */
  let moved = false;
  /** @type {WeakMap<Element, string>} what each cell shows */
  const painted = new WeakMap();

  head.append(headRow());

  /** @param {Heatmap} map */
  function render(map) {
    const newLayout = `${map.timeZone} ${map.days.map(({ date }) => date)}`;
    if (newLayout !== layout) {
      build(map);
      layout = newLayout;
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
    map.hourSums.forEach((sum, hour) => paintSum(sums[hour], sum, `All days, hour ${twoDigits(hour)}`));
    paintSum(sums[HOURS], map.sum, 'All days');
    if (!moved) {
      startAtCurrent(map);
    }
  }

  /** @param {Heatmap} map */
  function build(map) {
    const focused = body.contains(document.activeElement) || foot.contains(document.activeElement);
    const template = document.createElement('tr');
    template.append(document.createElement('th'));
    for (let index = 0; index <= HOURS; index++) {
      const td = document.createElement('td');
      td.tabIndex = -1;
      template.append(td);
    }
    const rows = map.days.map(({ date }) => {
      const tr = clone(template);
      const header = /** @type {HTMLTableCellElement} */ (tr.firstChild);
      header.scope = 'row';
      const time = document.createElement('time');
      time.dateTime = date;
      time.textContent = dateTexts(date).short;
      header.append(time);
      return tr;
    });
    const sums = clone(template);
    const header = /** @type {HTMLTableCellElement} */ (sums.firstChild);
    header.scope = 'row';
    header.textContent = 'All days';
    body.replaceChildren(...rows);
    foot.replaceChildren(sums);
    // Keep the tab stop on its date when a new day starts.
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
        setTabStop(index, at);
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
    const key = `${sum.count} ${sum.complete}`;
    if (painted.get(td) === key) {
      return;
    }
    painted.set(td, key);
    td.className = 'sum';
    td.textContent = sum.count === 0 && !sum.complete ? '–' : short(sum.count);
    td.setAttribute('aria-label', `${what}: ${inFull(sum.count)}${sum.complete ? '' : ', not all hours are loaded'}`);
  }

  /**
   * @param {number} toRow
   * @param {number} toColumn
   */
  function setTabStop(toRow, toColumn) {
    cells[row][column].tabIndex = -1;
    row = Math.min(Math.max(toRow, 0), cells.length - 1);
    column = Math.min(Math.max(toColumn, 0), HOURS);
    cells[row][column].tabIndex = 0;
    return cells[row][column];
  }

  /** @type {Record<string, (all: boolean) => [number, number]>} */
  const moves = {
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
    const move = moves[event.key];
    if (!move || event.altKey || event.metaKey || event.shiftKey || !cells.length) {
      return;
    }
    event.preventDefault();
    const cell = setTabStop(...move(event.ctrlKey));
    cell.focus();
    // focus() alone may leave the cell partly behind the column of days.
    cell.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  });

  table.addEventListener('focusin', ({ target }) => {
    const at = cells.findIndex((tds) => tds.includes(/** @type {any} */ (target)));
    if (at >= 0) {
      moved = true;
      setTabStop(at, cells[at].indexOf(/** @type {any} */ (target)));
    }
  });

  return {
    render,
    /** On a narrow screen, scrolls to the current hour. */
    showCurrent() {
      const current = table.querySelector('.current');
      const frame = table.parentElement;
      if (current && frame) {
        frame.scrollLeft += current.getBoundingClientRect().right - frame.getBoundingClientRect().right + 16;
      }
    },
  };
}

/** @param {HTMLTableRowElement} row */
function clone(row) {
  return /** @type {HTMLTableRowElement} */ (row.cloneNode(true));
}

function headRow() {
  const tr = document.createElement('tr');
  const titles = ['Day', ...Array.from({ length: HOURS }, (_, hour) => twoDigits(hour)), 'Total'];
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
    // If the clocks go forward by half an hour, part of this local hour exists.
    return `${date}, ${twoDigits(hour)}:00: no hour starts here, the clocks go forward`;
  }
  const parts = buckets.map((bucket) => {
    const zone = buckets.length > 1 ? ` (${offsetText(bucket.local.offset)})` : '';
    return `${rangeText(bucket.local)}${zone}: ${descriptionOf(bucket)}`;
  });
  return `${date}, ${parts.join('; ')}`;
}

/** @param {Bucket} bucket */
function descriptionOf({ state, count, partial, current }) {
  const description = {
    count: inFull(count),
    live: `${inFull(count)}, live only`,
    unloaded: 'not loaded',
    future: 'future',
    outside: 'before the selected period',
  }[state];
  return `${description}${partial ? ', partial hour' : ''}${current ? ', current hour' : ''}`;
}

const format = new Intl.NumberFormat('en-GB');

/** @param {number} count */
export function number(count) {
  return format.format(count);
}

/** @param {number} count */
export function events(count) {
  return `${number(count)} ${count === 1 ? 'event' : 'events'}`;
}

/**
 * A count for a label, which has to contain the text of its cell (WCAG 2.5.3).
 * @param {number} count
 */
function inFull(count) {
  const text = short(count);
  return text === `${count}` ? `${text} ${count === 1 ? 'event' : 'events'}` : `${events(count)}, about ${text}`;
}

/**
 * A count in at most four characters, rounded down.
 * @param {number} count
 */
export function short(count) {
  let value = count;
  for (const unit of ['', 'k', 'M', 'G', 'T', 'P']) {
    if (value < (unit ? 1000 : 10_000)) {
      return unit && value < 10 ? `${Math.floor(value * 10) / 10}${unit}` : `${Math.floor(value)}${unit}`;
    }
    value /= 1000;
  }
  return '∞';
}
