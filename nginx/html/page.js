/** The page: what the viewer chose, the store and the live events, brought together. */

import { createGrid, events } from './grid.js';
import { heatmap } from './heatmap.js';
import { createLive } from './live.js';
import { listen } from './socket.js';
import { createStore } from './store.js';
import { clockOf, dateTexts, localTimeZone, offsetText, two } from './time.js';
import { forgetRefusedToken, forgetToken, keepToken, readToken, watchToken } from './token.js';
import { attachTooltip } from './tooltip.js';

/** @typedef {import('./store.js').Store} Store */

const LOADING = 'Fetching historic data…';
const FAILED = 'Unable to load historic data. Showing real-time events only.';

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 */
const element = (id) => /** @type {T} */ (document.getElementById(id));

const live = createLive();
const grid = createGrid(element('grid'));
const refreshTooltip = attachTooltip(element('tooltip'), element('grid'));
const controls = /** @type {HTMLFormElement} */ (element('controls'));
const sourceChoice = /** @type {HTMLSelectElement} */ (element('source'));
const zone = localTimeZone();

/** @type {Store | null} */
let store = null;
/** @type {(() => void) | null} */
let stopListening = null;
let webSocketUrl = '';
/** @type {Set<string>} every source seen so far, so that choosing one leaves the others to choose */
const sources = new Set();
let legend = '';
let drawing = false;
let drawn = false;
/** The time of the newest live event, for when no answer has told the time yet. */
let newest = -Infinity;

/**
 * Counts a live event: an object with at least `source` and `timestamp`.
 * @param {unknown} event
 * @returns {boolean} false for what is no event
 */
export function addEvent(event) {
  if (!live.add(event, store ? store.requests : 0)) {
    return false;
  }
  newest = Math.max(newest, Date.parse(/** @type {{ timestamp: string }} */ (event).timestamp.toUpperCase()));
  requestDraw();
  return true;
}

function requestDraw() {
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(draw);
  }
}

/** What the viewer chose. */
function choices() {
  const chosen = new FormData(controls);
  return {
    days: /** @type {7 | 30} */ (Number(chosen.get('days'))),
    source: sourceChoice.value === '' ? null : sourceChoice.value,
    timeZone: chosen.get('zone') === 'utc' ? 'UTC' : zone,
  };
}

function draw() {
  drawing = false;
  if (!store) {
    return;
  }
  const state = store.getState();
  if (state.historicDataErrorStatus === 401) {
    // A token that was good yesterday is of no more use either.
    forgetRefusedToken();
    startAgain(state.historicDataError ?? '');
    return;
  }
  const signedIn = readToken() !== '';
  element('sign-in').hidden = signedIn;
  element('heatmap').hidden = !signedIn;
  element('forget').hidden = !signedIn;
  if (signedIn) {
    drawStates();
    drawHeatmap();
    fillSources();
  }
}

/** Loading or failed, one at a time; drawHeatmap knows whether it is empty. */
function drawStates() {
  const { historicDataStatus: status, historicDataFetchedAt: fetchedAt, historicDataError } =
    /** @type {Store} */ (store).getState();
  const loading = status === 'loading' && fetchedAt === null;
  const failed = status === 'error';
  const { timeZone } = choices();
  element('loading').hidden = !loading;
  element('error').hidden = !failed;
  if (failed) {
    // What an earlier fetch brought is still there, and it would be wrong to say otherwise.
    element('error-title').textContent = fetchedAt === null ? FAILED
      : `Unable to load historic data. Showing the counts of ${timeText(fetchedAt, timeZone)} and real-time events.`;
    element('error-reason').textContent = historicDataError;
  }
  if (loading || failed) {
    element('empty').hidden = true;
    announce(loading ? LOADING : `${element('error-title').textContent} ${historicDataError}`);
  }
}

function drawHeatmap() {
  const known = /** @type {Store} */ (store);
  const { historicData, historicDataStatus, historicDataFetchedAt, historicRequest } = known.getState();
  const { days, source, timeZone } = choices();
  const now = known.now() ?? (newest > 0 ? newest : null);
  element('shown').hidden = now === null;
  element('total').textContent = element('total-of').textContent = '';
  if (now === null) {
    return;
  }
  const begun = performance.now();
  const map = heatmap({
    days, source, timeZone, now,
    aggregates: historicData,
    fetchedAt: historicDataFetchedAt,
    live: live.since(historicRequest ?? 0, source),
  });
  grid.render(map);
  performance.measure('steep: render', { start: begun, end: performance.now() });
  // Whoever observes it has it; a page that is open for days must not keep them all.
  performance.clearMeasures('steep: render');

  // Isolated, so that a name written from right to left doesn't turn the words around it.
  const of = `in the last ${days} days, ${source === null ? 'all sources' : `\u2068source ${source}\u2069`}`;
  element('total').textContent = map.sum.count === 0 && !map.sum.whole ? '' : events(map.sum.count);
  element('total-of').textContent = map.sum.whole ? of : map.sum.count ? 'live; the rest is not loaded' : '';
  element('caption').textContent =
    `Events by hour ${of}. Days and hours of ${timeZone}, the newest day first.`;
  drawLegend(map.steps);
  drawNote(now, historicDataFetchedAt, timeZone);

  const empty = historicDataStatus === 'success' && map.sum.count === 0;
  element('empty').hidden = !empty;
  element('empty').textContent = empty ? `No events ${of}.` : '';
  if (historicDataStatus === 'success') {
    announce(empty ? `No events ${of}.` : `${days} days loaded.`);
  }
  refreshTooltip();
  if (!drawn && historicDataFetchedAt !== null) {
    drawn = true;
    grid.showCurrent();
    requestAnimationFrame(() => setTimeout(() => performance.mark('steep: painted'), 0));
  }
}

/** @param {import('./scale.js').Step[]} steps */
function drawLegend(steps) {
  const key = JSON.stringify(steps);
  if (key === legend) {
    return;
  }
  legend = key;
  /** @type {[string, string, string][]} class, text in the swatch, meaning */
  const entries = [
    ...steps.map(({ level, from, to }) => /** @type {[string, string, string]} */ (
      [`count level-${level}`, '', from === to ? `${from}` : `${from}–${to}`])),
    ['zero', '0', 'none'],
    ['future', '', 'to come'],
    ['unloaded', '?', 'not loaded'],
    ['zero current', '', 'now'],
    ['zero partial', '', 'in part'],
  ];
  element('legend').replaceChildren(...entries.map(([look, text, meaning]) => {
    const item = document.createElement('li');
    const swatch = document.createElement('span');
    swatch.className = `swatch ${look}`;
    swatch.textContent = text;
    swatch.ariaHidden = 'true';
    item.append(swatch, meaning);
    return item;
  }));
}

/**
 * @param {number} now
 * @param {number | null} fetchedAt
 * @param {string} timeZone
 */
function drawNote(now, fetchedAt, timeZone) {
  const { offset } = clockOf(timeZone)(now);
  const minute = ((offset % 60) + 60) % 60;
  element('as-of').textContent = [
    fetchedAt === null ? '' : `Counts of ${timeText(fetchedAt, timeZone)}.`,
    timeZone === 'UTC' ? 'Times in UTC.' : `Times in ${timeZone}, now ${offsetText(offset)}.`,
    minute ? `Counts are by the hour of UTC, which begins at ${two(minute)} past the hour there.` : '',
  ].filter(Boolean).join(' ');
}

/**
 * @param {number} instant
 * @param {string} timeZone
 */
function timeText(instant, timeZone) {
  const { date, hour, minute } = clockOf(timeZone)(instant);
  return `${dateTexts(date).short}, ${two(hour)}:${two(minute)}`;
}

/** The filter has every source that was seen, and the one chosen. */
function fillSources() {
  const before = sources.size;
  for (const { source } of store?.historicData ?? []) {
    sources.add(source);
  }
  for (const source of live.sources()) {
    sources.add(source);
  }
  if (sources.size === before && sourceChoice.length === before + 1) {
    return;
  }
  const chosen = sourceChoice.value;
  const names = [...sources].sort();
  sourceChoice.replaceChildren(new Option('All sources', ''), ...names.map((name) => new Option(name, name)));
  sourceChoice.value = chosen;
}

/**
 * Says something to a screen reader, once.
 * @param {string} text
 */
function announce(text) {
  const region = element('announcement');
  if (region.textContent !== text) {
    region.textContent = text;
  }
}

function drawWait() {
  const wait = store?.historicDataStatus === 'error' ? store.retryIn() : null;
  element('error-wait').textContent = wait === null ? '' : `Trying again in ${Math.ceil(wait / 1000)} s.`;
}

function signIn() {
  if (webSocketUrl !== '' && !stopListening) {
    stopListening = listen(webSocketUrl, addEvent);
  }
  fetchChosen();
}

/**
 * Goes on with the token that is kept now, if there is one; what another one showed is gone.
 * @param {string} sentence  why that one is gone, '' when it was the viewer's own wish
 */
function startAgain(sentence) {
  stopListening?.();
  stopListening = null;
  live.clear();
  sources.clear();
  newest = -Infinity;
  drawn = false;
  controls.reset();
  store?.clearHistoricData();
  const signedIn = readToken() !== '';
  if (signedIn) {
    signIn();
  }
  draw();
  refuseInput(signedIn ? '' : sentence);
  if (!signedIn) {
    element('token').focus();
  }
}

/** @param {string} sentence  what is wrong with the token, '' for nothing */
function refuseInput(sentence) {
  element('token-error').textContent = sentence;
  element('token').setAttribute('aria-invalid', `${sentence !== ''}`);
}

function fetchChosen() {
  const { days, source } = choices();
  store?.fetchHistoricData(days, source);
}

/** @param {Event} event */
function onToken(event) {
  event.preventDefault();
  const field = /** @type {HTMLInputElement} */ (element('token'));
  const token = field.value.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) {
    refuseInput('A token has only letters, digits and signs, and no spaces between them.');
    return;
  }
  keepToken(token, /** @type {HTMLInputElement} */ (element('remember')).checked);
  field.value = '';
  refuseInput('');
  signIn();
  draw();
  element('heatmap-title').focus();
}

function onRetry() {
  // The button goes away, and focus must not go with it.
  element('heatmap-title').focus();
  store?.retryHistoricData();
}

/** @returns {Promise<{ baseUrl: string, webSocketUrl: string }>} */
async function readConfiguration() {
  const response = await fetch('config.json', { cache: 'no-cache' });
  const { baseUrl, webSocketUrl } = await response.json();
  if (typeof baseUrl !== 'string' || typeof webSocketUrl !== 'string') {
    throw new TypeError('config.json has no such addresses');
  }
  return { baseUrl, webSocketUrl };
}

async function start() {
  let configured;
  try {
    configured = await readConfiguration();
  } catch {
    element('broken').textContent = 'The page’s configuration could not be read. Reload the page to try again.';
    element('broken').hidden = false;
    return;
  }
  webSocketUrl = configured.webSocketUrl;
  store = createStore({ baseUrl: configured.baseUrl, getToken: readToken });
  if (!store.enabled) {
    return;
  }
  store.subscribe(() => {
    const { historicDataStatus } = /** @type {Store} */ (store).getState();
    if (historicDataStatus === 'success') {
      live.forgetBefore(/** @type {Store} */ (store).oldestRequest);
    }
    drawWait();
    requestDraw();
  });
  element('local-zone').textContent = zone;
  element('zones').hidden = zone === 'UTC';
  controls.addEventListener('change', () => {
    fetchChosen();
    requestDraw();
  });
  controls.addEventListener('submit', (event) => event.preventDefault());
  element('token-form').addEventListener('submit', onToken);
  element('forget').addEventListener('click', () => {
    forgetToken();
    startAgain('');
  });
  watchToken(() => startAgain(''));
  element('retry').addEventListener('click', onRetry);
  setInterval(drawWait, 1000);
  draw();
  if (readToken() !== '') {
    signIn();
  }
}

start();
