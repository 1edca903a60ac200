/** Live events from a WebSocket that sends one event per message, in JSON. */

const MIN_BACKOFF_MS = 1_000;
const MAX_BACKOFF_MS = 60_000;

/**
 * Connects and reconnects until stopped. The wait before a reconnect doubles until a message
 * arrives. An invalid URL is reported on the console.
 * @param {string} url
 * @param {(event: unknown) => void} onEvent
 * @param {{ WebSocket?: typeof WebSocket, setTimeout?: (action: () => void, delay: number) => unknown }} [options]
 * @returns {() => void} stops
 */
export function listen(url, onEvent, options = {}) {
  const Socket = options.WebSocket ?? WebSocket;
  const wait = options.setTimeout ?? ((action, delay) => setTimeout(action, delay));
  /** @type {WebSocket | null} */
  let socket = null;
  let failures = 0;
  let stopped = false;

  function connect() {
    if (stopped) {
      return;
    }
    try {
      socket = new Socket(url);
    } catch (error) {
      // Not a WebSocket URL, or ws: in an https: page. A retry would not help.
      console.error(`Live events are disabled: ${error}`);
      return;
    }
    socket.onmessage = ({ data }) => {
      failures = 0;
      let event;
      try {
        event = JSON.parse(data);
      } catch {
        return;
      }
      onEvent(event);
    };
    socket.onclose = () => {
      const maxBackoff = Math.min(MAX_BACKOFF_MS, MIN_BACKOFF_MS * 2 ** failures++);
      wait(connect, maxBackoff * (1 + Math.random()) / 2);
    };
  }

  connect();
  return () => {
    stopped = true;
    socket?.close();
  };
}
