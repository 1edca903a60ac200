/** Stores the token: for this tab, or for all tabs of the browser if the viewer chooses so. */

const STORAGE_KEY = 'steep.token';

// The only copy if the browser blocks storage.
let current = '';

/** @param {(storage: Storage) => void} action */
function withStorages(action) {
  for (const name of /** @type {const} */ (['sessionStorage', 'localStorage'])) {
    try {
      action(window[name]);
    } catch {
      // Storage is blocked.
    }
  }
}

/** The token, or '' if there is none. */
export function readToken() {
  withStorages((storage) => {
    current = current || (storage.getItem(STORAGE_KEY) ?? '');
  });
  return current;
}

/**
 * @param {string} token
 * @param {boolean} remember  for all tabs, and after they are closed
 */
export function keepToken(token, remember) {
  forgetToken();
  current = token;
  try {
    (remember ? localStorage : sessionStorage).setItem(STORAGE_KEY, token);
  } catch {
    // Storage is blocked.
  }
}

export function forgetToken() {
  current = '';
  withStorages((storage) => storage.removeItem(STORAGE_KEY));
}

/** Forgets the token that was read last, but not one that another tab has stored since. */
export function forgetRefusedToken() {
  const refused = current;
  current = '';
  withStorages((storage) => storage.getItem(STORAGE_KEY) === refused && storage.removeItem(STORAGE_KEY));
}

/**
 * Calls back when another tab removes or replaces the token that all tabs share.
 * @param {() => void} action
 */
export function watchToken(action) {
  addEventListener('storage', ({ key }) => {
    // key is null when the storage was cleared.
    if (key !== STORAGE_KEY && key !== null) {
      return;
    }
    const before = current;
    current = '';
    // No change for a tab that has its own token.
    if (readToken() !== before) {
      action();
    }
  });
}
