import { $, BACKGROUND } from "./common.js";

// --- the stream of changes

// `more` are handlers of other events by their name. A page with a list is told of that list, any other only which
// conversations changed.
export function listen(since, onRows, onStale, more = {}) {
  let last = since;
  let timer = 0;
  const bar = $("#connection");
  const list = $("#rows");
  const about = list ? list.dataset.query : "bare=1";
  const lost = (text) => { bar.textContent = text; bar.hidden = false; };

  function connect() {
    const source = new EventSource(`/events?since=${last}&${about}`);
    const take = (handler) => (event) => {
      if (event.lastEventId) last = event.lastEventId;
      handler(JSON.parse(event.data));
    };
    for (const [name, handler] of Object.entries({ rows: onRows, stale: onStale, ...more })) {
      source.addEventListener(name, take(handler));
    }
    source.onopen = () => { clearTimeout(timer); timer = 0; bar.hidden = true; };
    source.onerror = () => {
      // A short break (a restart) passes unseen; the browser connects again by itself.
      if (!timer) timer = setTimeout(() => lost("The connection to the desk is lost. Trying again …"), 5000);
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 3000);
    };
  }

  async function again() {
    try {
      const response = await fetch("/account", { headers: { Accept: "application/json", ...BACKGROUND } });
      if (response.status === 401) {
        clearTimeout(timer);
        lost("You are signed out. Reload this page to sign in again.");
        return;
      }
    } catch { /* still gone */ }
    connect();
  }

  connect();
}
