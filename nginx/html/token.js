/** Where the token is kept: for this tab, or for this browser if the viewer says so. */

const NAME = 'steep.token';

// A browser that forbids storage keeps it as long as the page is open.
let kept = '';

/** @param {(storage: Storage) => void} action */
function withStorages(action) {
  for (const name of /** @type {const} */ (['sessionStorage', 'localStorage'])) {
    try {
      action(window[name]);
    } catch {
      // Forbidden.
    }
  }
}

/** The token, '' when there is none. */
export function readToken() {
  withStorages((storage) => {
    kept = kept || (storage.getItem(NAME) ?? '');
  });
  return kept;
}

/**
 * @param {string} token
 * @param {boolean} remember  also when the tab is closed
 */
export function keepToken(token, remember) {
  forgetToken();
  kept = token;
  try {
    (remember ? localStorage : sessionStorage).setItem(NAME, token);
  } catch {
    // Forbidden.
  }
}

export function forgetToken() {
  kept = '';
  withStorages((storage) => storage.removeItem(NAME));
}

/** Forgets the token that was read last, and no better one that another tab was given since. */
export function forgetRefusedToken() {
  const refused = kept;
  kept = '';
  withStorages((storage) => storage.getItem(NAME) === refused && storage.removeItem(NAME));
}

/**
 * Tells that another tab forgot or replaced the token that the browser keeps for all of them.
 * @param {() => void} action
 */
export function watchToken(action) {
  addEventListener('storage', ({ key }) => {
    // null: everything was cleared.
    if (key !== NAME && key !== null) {
      return;
    }
    const before = kept;
    kept = '';
    // A tab with a token of its own finds that again.
    if (readToken() !== before) {
      action();
    }
  });
}
