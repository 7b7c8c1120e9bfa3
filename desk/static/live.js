import { $ } from "./common.js";

// --- the stream of changes

export function listen(since, onRows, onStale) {
  let last = since;
  let timer = 0;
  const bar = $("#connection");
  const lost = (text) => { bar.textContent = text; bar.hidden = false; };

  function connect() {
    const source = new EventSource(`/events?since=${last}`);
    const take = (handler) => (event) => {
      if (event.lastEventId) last = event.lastEventId;
      handler(JSON.parse(event.data));
    };
    source.addEventListener("rows", take(onRows));
    source.addEventListener("stale", take(onStale));
    source.onopen = () => { clearTimeout(timer); timer = 0; bar.hidden = true; };
    source.onerror = () => {
      // A short break (a restart) passes unseen; the browser connects again by itself.
      if (!timer) timer = setTimeout(() => lost("The connection to the desk is lost. Trying again …"), 5000);
      if (source.readyState === EventSource.CLOSED) setTimeout(again, 3000);
    };
  }

  async function again() {
    try {
      const response = await fetch("/account", { headers: { Accept: "application/json" } });
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
