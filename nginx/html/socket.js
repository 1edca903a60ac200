/** Live events from a WebSocket whose messages are single events in JSON. */

const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 60_000;

/**
 * Reads until closed. A connection that ends is made again after a pause, which doubles until
 * a message arrives. An address that no connection can be made to is told on the console.
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
    try {
      socket = new Socket(url);
    } catch (error) {
      // Not an address, or not an encrypted one in an encrypted page: it won't get better.
      console.error(`There will be no live events: ${error}`);
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
