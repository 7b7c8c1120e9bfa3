import { $, all, announce, tellAges } from "./common.js";
import { listen } from "./live.js";
import { watchPresence } from "./presence.js";

// --- conversation: forms answer in place, other people's changes show, and nothing that is typed is lost

const SIGNED_OUT = "Not saved: you are signed out. What you wrote is still here; sign in in another tab, then save again.";
const NO_ANSWER = "Not saved: the desk did not answer. What you wrote is still here; try again in a moment.";

export function watchConversation() {
  const main = () => $("main.conversation");
  const id = Number(main().dataset.id);
  const news = () => $("#news");
  const typed = () => all("textarea", main()).filter((t) => t.value !== t.defaultValue);
  const editing = () => typed().length > 0 || $("#clash") !== null
    || all("select", main()).some((s) => s === document.activeElement || s.selectedIndex !== Math.max(0, [...s.options].findIndex((o) => o.defaultSelected)))
    || all(".mail-bar input, .merge input, .snooze input", main()).some((i) => i.value !== i.defaultValue || i.checked !== i.defaultChecked);
  let sending = false;
  watchOriginals();
  watchPresence();

  // What was typed elsewhere than in the form that was just answered, with the value that it was typed over.
  function carry(fresh, answered) {
    const clash = $("textarea#clash-text", main());
    for (const text of new Set([...typed(), ...(clash ? [clash] : [])])) {
      const id = text.id === "clash-text" && !$("#clash", fresh) ? `text-${text.form.dataset.editing}` : text.id;
      const same = fresh.querySelector(`#${CSS.escape(id)}`);
      if (!same || (answered && answered.contains(text))) continue;
      same.value = text.value;
      const details = same.closest("details");
      if (details) details.open = true;
      const before = text.form.elements.before;
      if (before && same.form.elements.before) same.form.elements.before.value = before.value;
    }
  }

  function show(text, { answered = null } = {}) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = $("main.conversation", page);
    if (!fresh) return false;
    for (const details of all("details[id][open]:not(.edit, .snooze)", main())) {
      const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
      if (same) same.open = true;
    }
    carry(fresh, answered);
    const key = document.activeElement && document.activeElement.closest("[data-key]");
    main().replaceWith(document.adoptNode(fresh));
    document.title = page.title;
    if (key) {
      const same = $(`[data-key="${CSS.escape(key.dataset.key)}"]`, main());
      if (same && same.getClientRects().length) same.focus({ preventScroll: true });
    }
    for (const details of all(".original[open]", main())) showOriginal(details);
    tellAges();
    return true;
  }

  function fail(sentence) {
    let alert = $("#problem");
    if (!alert) {
      alert = document.createElement("div");
      alert.id = "problem";
      alert.className = "alert";
      alert.setAttribute("role", "alert");
      $(".back", main()).after(alert);
    }
    alert.textContent = sentence;
    alert.scrollIntoView({ block: "nearest" });
  }

  function tell(form) {
    const clash = $("#clash");
    if (clash) {
      clash.focus({ preventScroll: true });
      clash.scrollIntoView({ block: "start" });
      announce($("h2", clash).textContent);
      return;
    }
    const said = $("#problem") || $("#note");
    if (said && said.id === "problem") said.scrollIntoView({ block: "nearest" });
    else announce(said ? $("p", said).textContent : form.dataset.said || "");
  }

  async function send(form, button) {
    if (sending) return;
    sending = true;
    const body = new URLSearchParams(new FormData(form, button));
    if (button) button.disabled = true;
    try {
      const response = await fetch(form.action, { method: "POST", body });
      const { pathname } = new URL(response.url);
      if (pathname === "/sign-in") {
        fail(SIGNED_OUT);
      } else if (pathname === `/conversations/${id}` || (!response.redirected && pathname.startsWith(`/conversations/${id}/`))) {
        if (!show(await response.text(), { answered: form })) throw new Error("no page");
        tell(form);
      } else if (response.ok) {
        location.assign(response.url);
      } else {
        const said = $("main p", new DOMParser().parseFromString(await response.text(), "text/html"));
        fail(said ? said.textContent : NO_ANSWER);
      }
    } catch {
      fail(NO_ANSWER);
    } finally {
      sending = false;
      if (button && button.isConnected) button.disabled = false;
    }
  }

  async function refetch() {
    const { from } = main().dataset;
    const response = await fetch(`/conversations/${id}${from ? `?${new URLSearchParams({ from })}` : ""}`).catch(() => null);
    // Merged into another one: that one's page has an address of its own.
    if (response && response.redirected) location.assign(response.url);
    else if (response && response.ok) show(await response.text());
  }

  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-here]")) return;
    event.preventDefault();
    send(event.target, event.submitter);
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("#news")) refetch();
  });
  // Leaving the page would lose what is typed; the browser asks.
  addEventListener("beforeunload", (event) => {
    if (!sending && (typed().length || $("#clash"))) event.preventDefault();
  });

  listen(
    main().dataset.since,
    ({ rows }) => {
      const change = rows.find((row) => row.id === id);
      if (!change || change.stamp <= Number(main().dataset.stamp) || sending) return;
      if (editing()) {
        news().textContent = "This conversation has changed: show";
        news().hidden = false;
        announce(news().textContent);
      } else {
        refetch().then(() => announce("This conversation has changed."));
      }
    },
    () => { if (!editing()) refetch(); },
  );
}

// --- the mail's own HTML, loaded when it is asked for

function showOriginal(details) {
  if (!details.open || $("iframe", details)) return;
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "");
  frame.referrerPolicy = "no-referrer";
  frame.title = "The mail as it was written";
  frame.src = details.dataset.original;
  details.append(frame);
}

function watchOriginals() {
  for (const details of all(".original[open]")) showOriginal(details); // opened before this script was there
  document.addEventListener("toggle", (event) => {
    if (event.target.matches("details.original")) showOriginal(event.target);
  }, true);
}

// --- a sentence of the summary lights up the part of the mail that supports it

function lightUp(link, { look = false } = {}) {
  for (const part of all(".support.lit")) part.classList.remove("lit");
  if (!link) return;
  const parts = all(`.support[data-supports~="${CSS.escape(link.dataset.sentence)}"]`);
  for (const part of parts) part.classList.add("lit");
  if (look && parts.length) parts[0].scrollIntoView({ block: "nearest" });
}

export function watchSentences() {
  const sentence = (event) => event.target.closest("a.sentence");
  document.addEventListener("focusin", (event) => lightUp(sentence(event)));
  document.addEventListener("click", (event) => {
    const link = sentence(event);
    if (!link) return;
    event.preventDefault();
    lightUp(link, { look: true });
  });
}
