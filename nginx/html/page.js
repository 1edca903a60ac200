/** The page: connects the controls, the store, the live events and the grid. */

import { createGrid, events } from './grid.js';
import { heatmap } from './heatmap.js';
import { createLive, readEvent } from './live.js';
import { listen } from './socket.js';
import { createStore } from './store.js';
import { dateTexts, localTimeIn, localTimeZone, offsetText, twoDigits } from './time.js';
import { forgetRefusedToken, forgetToken, keepToken, readToken, watchToken } from './token.js';
import { attachTooltip } from './tooltip.js';

/** @typedef {import('./store.js').Store} Store */

const LOADING = 'Fetching historic data…';
const CONFIGURATION_TIMEOUT_MS = 10_000;
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
/** @type {Set<string>} every source seen so far, so that the filter keeps offering all of them */
const sources = new Set();
/** @type {Store['historicData'] | null} whose sources are among them */
let lastHistoricData = null;
let legend = '';
let isDrawScheduled = false;
let isFirstDrawDone = false;
/** The time of the newest live event: the current time, until an answer contains the server's. */
let newestEventTime = -Infinity;

/**
 * Counts a live event: an object with at least `source` and `timestamp`.
 * @param {unknown} event
 * @returns {boolean} whether the event is valid
 */
export function addEvent(event) {
  const read = readEvent(event);
  if (!read) {
    return false;
  }
  live.add(event, store ? store.requests : 0);
  newestEventTime = Math.max(newestEventTime, read.instant);
  requestDraw();
  return true;
}

function requestDraw() {
  if (!isDrawScheduled) {
    isDrawScheduled = true;
    requestAnimationFrame(draw);
  }
}

/** The values of the controls. */
function readControls() {
  const chosen = new FormData(controls);
  return {
    days: /** @type {7 | 30} */ (Number(chosen.get('days'))),
    source: sourceChoice.value === '' ? null : sourceChoice.value,
    timeZone: chosen.get('zone') === 'utc' ? 'UTC' : zone,
  };
}

function draw() {
  isDrawScheduled = false;
  if (!store) {
    return;
  }
  const state = store.getState();
  if (state.historicDataErrorStatus === 401) {
    // Invalid or expired.
    forgetRefusedToken();
    restart(state.historicDataError ?? '');
    return;
  }
  const signedIn = readToken() !== '';
  element('sign-in').hidden = signedIn;
  element('heatmap').hidden = !signedIn;
  element('sign-out').hidden = !signedIn;
  if (signedIn) {
    drawStates();
    drawHeatmap();
    fillSources();
  }
}

/** The notices for loading and errors; drawHeatmap draws the one for no events. */
function drawStates() {
  const { historicDataStatus: status, historicDataFetchedAt: fetchedAt, historicDataError } =
    /** @type {Store} */ (store).getState();
  const loading = status === 'loading' && fetchedAt === null;
  const failed = status === 'error';
  const { timeZone } = readControls();
  element('loading').hidden = !loading;
  element('error').hidden = !failed;
  if (failed) {
    // The counts of an earlier request stay on the page.
    element('error-title').textContent = fetchedAt === null ? FAILED
      : `Unable to load historic data. Showing counts from ${timeText(fetchedAt, timeZone)} and real-time events.`;
    element('error-reason').textContent = historicDataError;
  }
  if (loading || failed) {
    element('empty').hidden = true;
    announce(loading ? LOADING : `${element('error-title').textContent} ${historicDataError}`);
  }
}

function drawHeatmap() {
  const currentStore = /** @type {Store} */ (store);
  const { historicData, historicDataStatus, historicDataFetchedAt, historicRequest } = currentStore.getState();
  const { days, source, timeZone } = readControls();
  const now = currentStore.now() ?? (newestEventTime > 0 ? newestEventTime : null);
  element('shown').hidden = now === null;
  element('total').textContent = element('total-of').textContent = '';
  if (now === null) {
    return;
  }
  const started = performance.now();
  const map = heatmap({
    days, source, timeZone, now,
    aggregates: historicData,
    fetchedAt: historicDataFetchedAt,
    live: live.since(historicRequest ?? 0, source),
  });
  grid.render(map);
  performance.measure('steep: render', { start: started, end: performance.now() });
  // Observers have received it; a page that stays open for days must not keep them all.
  performance.clearMeasures('steep: render');

  // Isolated, so that a right-to-left name does not reorder the words around it.
  const period = `in the last ${days} days, ${source === null ? 'all sources' : `\u2068source ${source}\u2069`}`;
  element('total').textContent = map.sum.count === 0 && !map.sum.complete ? '' : events(map.sum.count);
  element('total-of').textContent = map.sum.complete ? period : map.sum.count ? '(not all hours are loaded)' : '';
  element('caption').textContent =
    `Events by hour ${period}. Times are in ${timeZone}, newest day first.`;
  drawLegend(map.steps);
  drawNote(now, historicDataFetchedAt, timeZone);

  const empty = historicDataStatus === 'success' && map.sum.count === 0;
  element('empty').hidden = !empty;
  element('empty').textContent = empty ? `No events ${period}.` : '';
  if (historicDataStatus === 'success') {
    announce(empty ? `No events ${period}.` : `${days} days loaded.`);
  }
  refreshTooltip();
  if (!isFirstDrawDone && historicDataFetchedAt !== null) {
    isFirstDrawDone = true;
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
    ['future', '', 'future'],
    ['unloaded', '?', 'not loaded'],
    ['zero current', '', 'current hour'],
    ['zero partial', '', 'partial hour'],
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
  const { offset } = localTimeIn(timeZone)(now);
  const minute = ((offset % 60) + 60) % 60;
  element('as-of').textContent = [
    fetchedAt === null ? '' : `Updated ${timeText(fetchedAt, timeZone)}.`,
    timeZone === 'UTC' ? 'Times are in UTC.' : `Times are in ${timeZone} (${offsetText(offset)}).`,
    minute ? `Each count is of a UTC hour, which starts at ${twoDigits(minute)} minutes past the local hour.` : '',
  ].filter(Boolean).join(' ');
}

/**
 * @param {number} instant
 * @param {string} timeZone
 */
function timeText(instant, timeZone) {
  const { date, hour, minute } = localTimeIn(timeZone)(instant);
  return `${dateTexts(date).short}, ${twoDigits(hour)}:${twoDigits(minute)}`;
}

/** Offers every source seen so far in the filter. */
function fillSources() {
  const before = sources.size;
  const { historicData } = /** @type {Store} */ (store);
  if (historicData !== lastHistoricData) {
    lastHistoricData = historicData;
    historicData.forEach(({ source }) => sources.add(source));
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
 * Announces a text to screen readers, unless it was the last one.
 * @param {string} text
 */
function announce(text) {
  const region = element('announcement');
  if (region.textContent !== text) {
    region.textContent = text;
  }
}

function drawRetryIn() {
  const wait = store?.historicDataStatus === 'error' ? store.retryIn() : null;
  element('error-wait').textContent = wait === null ? '' : `Retrying in ${Math.ceil(wait / 1000)} s.`;
}

function signIn() {
  if (webSocketUrl !== '' && !stopListening) {
    stopListening = listen(webSocketUrl, addEvent);
  }
  fetchSelected();
}

/**
 * Clears the page, and continues with the stored token or the sign-in form.
 * @param {string} error  to show in the sign-in form, '' for none
 */
function restart(error) {
  stopListening?.();
  stopListening = null;
  live.clear();
  sources.clear();
  lastHistoricData = null;
  newestEventTime = -Infinity;
  isFirstDrawDone = false;
  controls.reset();
  store?.clearHistoricData();
  const signedIn = readToken() !== '';
  if (signedIn) {
    signIn();
  }
  draw();
  showTokenError(signedIn ? '' : error);
  if (!signedIn) {
    element('token').focus();
  }
}

/** @param {string} error  '' for none */
function showTokenError(error) {
  element('token-error').textContent = error;
  element('token').setAttribute('aria-invalid', `${error !== ''}`);
}

function fetchSelected() {
  const { days, source } = readControls();
  store?.fetchHistoricData(days, source);
}

/** @param {Event} event */
function onSignIn(event) {
  event.preventDefault();
  const field = /** @type {HTMLInputElement} */ (element('token'));
  const token = field.value.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) {
    showTokenError('The token is invalid: it must contain only letters, digits and punctuation, no spaces.');
    return;
  }
  keepToken(token, /** @type {HTMLInputElement} */ (element('remember')).checked);
  field.value = '';
  showTokenError('');
  signIn();
  draw();
  element('heatmap-title').focus();
}

function onRetry() {
  // The button disappears, so move the focus first.
  element('heatmap-title').focus();
  store?.retryHistoricData();
}

/** @returns {Promise<{ baseUrl: string, webSocketUrl: string }>} */
async function readConfiguration() {
  const controller = new AbortController();
  setTimeout(() => controller.abort(), CONFIGURATION_TIMEOUT_MS);
  const response = await fetch('config.json', { cache: 'no-cache', signal: controller.signal });
  const { baseUrl, webSocketUrl } = await response.json();
  if (typeof baseUrl !== 'string' || typeof webSocketUrl !== 'string') {
    throw new TypeError('baseUrl and webSocketUrl must be strings');
  }
  return { baseUrl, webSocketUrl };
}

async function start() {
  let configuration;
  try {
    configuration = await readConfiguration();
  } catch {
    element('configuration-error').textContent = 'Unable to load the page’s configuration. Reload the page to retry.';
    element('configuration-error').hidden = false;
    return;
  }
  webSocketUrl = configuration.webSocketUrl;
  store = createStore({ baseUrl: configuration.baseUrl, getToken: readToken });
  if (!store.enabled) {
    return;
  }
  store.subscribe(() => {
    const { historicDataStatus } = /** @type {Store} */ (store).getState();
    if (historicDataStatus === 'success') {
      live.forgetBefore(/** @type {Store} */ (store).oldestRequest);
    }
    drawRetryIn();
    requestDraw();
  });
  element('local-zone').textContent = zone;
  element('zones').hidden = zone === 'UTC';
  controls.addEventListener('change', () => {
    fetchSelected();
    requestDraw();
  });
  controls.addEventListener('submit', (event) => event.preventDefault());
  element('token-form').addEventListener('submit', onSignIn);
  element('sign-out').addEventListener('click', () => {
    forgetToken();
    restart('');
  });
  watchToken(() => restart(''));
  element('retry').addEventListener('click', onRetry);
  setInterval(drawRetryIn, 1000);
  draw();
  if (readToken() !== '') {
    signIn();
  }
}

start();
