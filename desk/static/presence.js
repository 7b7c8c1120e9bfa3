import { $, all } from "./common.js";

// --- who else is here: a sign of life every few seconds while somebody can see the page

const EVERY = 10000;

export function watchPresence() {
  const main = () => $("main.conversation");
  let since = Date.now();
  let editing = "";

  // The field that is being written: focused, or left with something in it that is not saved.
  function edited() {
    const within = document.activeElement && document.activeElement.closest("[data-editing]");
    if (within && document.activeElement.matches("textarea, input, select")) return within.dataset.editing;
    const unsaved = all("[data-editing] textarea", main()).find((t) => t.getClientRects().length && t.value !== t.defaultValue);
    return unsaved ? unsaved.closest("[data-editing]").dataset.editing : "";
  }

  function show(others) {
    const place = $("#present");
    if (!place) return;
    place.replaceChildren(...others.map(({ name, doing }) => {
      const span = document.createElement("span");
      const who = document.createElement("bdi");
      who.textContent = name;
      span.append(who, ` ${doing}`);
      return span;
    }));
    place.hidden = !others.length;
  }

  async function tell() {
    if (document.visibilityState !== "visible") return;
    const seconds = (Date.now() - since) / 1000;
    since = Date.now();
    editing = edited();
    const body = new URLSearchParams({ editing, seconds: seconds.toFixed(1) });
    const response = await fetch(`/conversations/${main().dataset.id}/here`, { method: "POST", body, headers: { Accept: "application/json" } }).catch(() => null);
    if (response && response.ok) show((await response.json()).others);
  }

  const tellIfChanged = () => { if (edited() !== editing) tell(); };
  document.addEventListener("focusin", tellIfChanged);
  document.addEventListener("focusout", () => setTimeout(tellIfChanged));
  document.addEventListener("visibilitychange", () => { since = Date.now(); tell(); });
  setInterval(tell, EVERY);
  tell();
}
