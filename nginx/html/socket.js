/** Live events from a WebSocket whose messages are single events in JSON. */

const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 60_000;

/**
 * Reads until closed. A connection that ends is made again after a pause, which doubles until
 * a message arrives.
 * @param {string} url
 * @param {(event: unknown) => void} onEvent
 * @param {{ WebSocket?: typeof WebSocket, setTimeout?: (action: () => void, delay: number) => unknown }} [using]
 * @returns {() => void} ends it
 */
export function listen(url, onEvent, using = {}) {
  const Socket = using.WebSocket ?? WebSocket;
  const later = using.setTimeout ?? ((action, delay) => setTimeout(action, delay));
  /** @type {WebSocket | null} */
  let socket = null;
  let failures = 0;
  let ended = false;

  function open() {
    if (ended) {
      return;
    }
    socket = new Socket(url);
    socket.onmessage = ({ data }) => {
      failures = 0;
      try {
        onEvent(JSON.parse(data));
      } catch {
        // Not JSON: no event.
      }
    };
    socket.onclose = () => {
      const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** failures++);
      later(open, longest * (1 + Math.random()) / 2);
    };
  }

  open();
  return () => {
    ended = true;
    socket?.close();
  };
}
