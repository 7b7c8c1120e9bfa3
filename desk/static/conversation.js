import { $, all, announce, tellAges } from "./common.js";
import { listen } from "./live.js";

// --- conversation: forms answer in place, other people's changes show

export function watchConversation() {
  const main = () => $("main.conversation");
  const id = Number(main().dataset.id);
  const news = () => $("#news");
  const editing = () => all(".edit[open] textarea", main()).some((t) => t.value !== t.defaultValue)
    || all("select", main()).some((s) => s === document.activeElement || s.selectedIndex !== Math.max(0, [...s.options].findIndex((o) => o.defaultSelected)))
    || all(".mail-bar input, .merge input", main()).some((i) => i.value !== i.defaultValue || i.checked !== i.defaultChecked);
  let sending = false;

  function show(text) {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = $("main.conversation", page);
    if (!fresh) return false;
    for (const details of all("details[id][open]:not(.edit)", main())) {
      const same = fresh.querySelector(`#${CSS.escape(details.id)}`);
      if (same) same.open = true;
    }
    const key = document.activeElement && document.activeElement.closest("[data-key]");
    main().replaceWith(document.adoptNode(fresh));
    document.title = page.title;
    if (key) {
      const same = $(`[data-key="${CSS.escape(key.dataset.key)}"]`, main());
      if (same && same.getClientRects().length) same.focus({ preventScroll: true });
    }
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

  async function send(form, button) {
    if (sending) return;
    sending = true;
    const body = new URLSearchParams(new FormData(form, button));
    if (button) button.disabled = true;
    try {
      const response = await fetch(form.action, { method: "POST", body });
      if (new URL(response.url).pathname.startsWith(`/conversations/${id}`)) {
        if (!show(await response.text())) throw new Error("no page");
        const said = $("#problem") || $("#note");
        if (said && said.id === "note") announce(said.textContent);
        if (said && said.id === "problem") said.scrollIntoView({ block: "nearest" });
      } else if (new URL(response.url).pathname === "/sign-in") {
        fail("Not saved: you are signed out. What you wrote is still here; sign in in another tab, then save again.");
      } else {
        location.assign(response.url);
      }
    } catch {
      fail("Not saved: the desk did not answer. What you wrote is still here; try again in a moment.");
    } finally {
      sending = false;
      if (button && button.isConnected) button.disabled = false;
    }
  }

  async function refetch() {
    const response = await fetch(`/conversations/${id}`).catch(() => null);
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
