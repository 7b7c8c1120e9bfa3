// What the pages do beyond plain forms: live rows, keys, forms that stay on the page.
// Everything that matters works without this file.
"use strict";

(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const announce = (text) => { const p = $("#announce"); if (p) p.textContent = text; };
  const parse = (html) => { const t = document.createElement("template"); t.innerHTML = html; return t.content; };

  // --- ages, in the words of desk/pages.py

  function age(then) {
    const s = Math.max(0, Math.floor((Date.now() - then) / 1000));
    if (s < 60) return "now";
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h`;
    const days = Math.floor(s / 86400);
    return days === 1 ? "1 day" : `${days} days`;
  }

  function tellAges() {
    for (const time of all("time[data-age]")) {
      const then = new Date(time.dateTime);
      const said = age(then);
      const text = time.dataset.age === "age" ? said : said === "now" ? "just now" : `${said} ago`;
      if (time.textContent !== text) time.textContent = text;
      time.title = then.toLocaleString();
    }
  }

  // --- the stream of changes

  function listen(since, onRows, onStale) {
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

  // --- queue: rows come, change and go, and never move under a cursor or a focus

  function watchQueue(list) {
    const news = $("#news");
    const pending = new Map();
    const rowOf = (id) => document.getElementById(`row-${id}`);
    const { state, after } = list.dataset;
    const more = "more" in list.dataset;
    let staleTimer = 0;
    let stale = false;

    // The row that must stay where it is: focused, under the cursor, or the first one in sight.
    function anchor() {
      const kept = [list.contains(document.activeElement) && document.activeElement.closest(".row"), $(".row:hover", list)].filter(Boolean);
      if (kept.length) return kept.reduce((a, b) => (a.dataset.order > b.dataset.order ? a : b));
      if (list.getBoundingClientRect().top >= 0) return null;
      return all(".row", list).find((row) => row.getBoundingClientRect().bottom > 0) || null;
    }

    // Where a row belongs: the other row it stands before, null for the end, undefined for "on another page".
    function place(order, old) {
      if (after && order <= after) return undefined;
      const next = all(".row", list).find((row) => row !== old && row.dataset.order > order);
      return next || (more ? undefined : null);
    }

    function apply(change, { force = false } = {}) {
      const old = rowOf(change.id);
      if (old && Number(old.dataset.stamp) >= change.stamp) return true;
      const stays = change.state === state;
      if (old && stays && old.dataset.order === change.order) {
        replace(old, change);
        return true;
      }
      const before = stays ? place(change.order, old) : undefined;
      if (!old && before === undefined) return true;
      const kept = force ? null : anchor();
      if (kept && ((old && old.dataset.order <= kept.dataset.order) || (before !== undefined && change.order <= kept.dataset.order))) {
        return false;
      }
      const focused = old && old.contains(document.activeElement);
      if (before === undefined) {
        old.remove();
      } else {
        const row = old ? replace(old, change) : parse(change.html).firstElementChild;
        list.insertBefore(row, before);
        row.classList.add("fresh");
        if (focused) $(".row-link", row).focus({ preventScroll: true });
        if (!old) announce(`New: ${$("h2", row).textContent}`);
      }
      return true;
    }

    function replace(old, change) {
      const row = parse(change.html).firstElementChild;
      const focused = old.contains(document.activeElement);
      old.replaceWith(row);
      if (focused) $(".row-link", row).focus({ preventScroll: true });
      return row;
    }

    function tell() {
      for (const [id, change] of pending) {
        const old = rowOf(id);
        if (old && Number(old.dataset.stamp) >= change.stamp) pending.delete(id);
      }
      const fresh = [...pending.values()].filter((c) => !rowOf(c.id) && c.state === state).length;
      const text = stale ? "Much has changed: show" : fresh ? `${fresh} new` : pending.size ? `${pending.size} changed` : "";
      if (text && news.hidden) announce(text);
      news.textContent = text;
      news.hidden = !text;
      $("#empty").hidden = $(".row", list) !== null;
    }

    function settle({ force = false } = {}) {
      for (const [id, change] of pending) if (apply(change, { force })) pending.delete(id);
      tell();
      tellAges();
    }

    function count(counts) {
      $("#count").textContent = counts[state];
    }

    async function refetch() {
      staleTimer = 0;
      if (anchor()) { stale = true; tell(); return; }
      const response = await fetch(location.href).catch(() => null);
      if (!response || !response.ok) return;
      const fresh = $("#rows", new DOMParser().parseFromString(await response.text(), "text/html"));
      if (!fresh) return;
      list.replaceChildren(...fresh.children);
      pending.clear();
      stale = false;
      tell();
      tellAges();
    }

    news.addEventListener("click", () => {
      if (stale) { location.reload(); return; }
      settle({ force: true });
      scrollTo({ top: 0 });
      const first = $(".row-link", list);
      if (first) first.focus({ preventScroll: true });
    });
    // Once nobody points at a row any more, what had to wait takes its place.
    setInterval(() => { if (pending.size && !anchor()) settle(); }, 1000);

    listen(
      list.dataset.since,
      ({ rows, counts }) => {
        for (const change of rows) pending.set(change.id, change);
        settle();
        count(counts);
      },
      ({ counts }) => {
        count(counts);
        staleTimer ||= setTimeout(refetch, 2000);
      },
    );
  }

  function step(list, by) {
    const links = all(".row-link", list);
    if (!links.length) return;
    const at = links.indexOf(document.activeElement);
    const next = at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + by));
    links[next].focus();
    links[next].closest(".row").scrollIntoView({ block: "nearest" });
  }

  // --- conversation: forms answer in place, other people's changes show

  function watchConversation() {
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

  function watchSentences() {
    const sentence = (event) => event.target.closest("a.sentence");
    document.addEventListener("focusin", (event) => lightUp(sentence(event)));
    document.addEventListener("click", (event) => {
      const link = sentence(event);
      if (!link) return;
      event.preventDefault();
      lightUp(link, { look: true });
    });
  }

  // --- keys

  const keysOn = () => localStorage.getItem("keys") !== "off";

  function press(key) {
    const target = $(`[data-key="${CSS.escape(key)}"]`);
    if (!target) return false;
    if (target.matches("select")) {
      target.focus();
    } else if (target.matches("summary")) {
      target.parentElement.open = true;
      const text = $("textarea", target.parentElement);
      text.focus();
      text.setSelectionRange(text.value.length, text.value.length);
    } else {
      target.click();
    }
    return true;
  }

  function onKey(event) {
    const edit = event.target.closest && event.target.closest(".edit");
    if (edit && event.key === "Escape") {
      edit.open = false;
      $("summary", edit).focus();
      return;
    }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("textarea")) {
      event.preventDefault();
      event.target.form.requestSubmit();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat && !/^[jk]$/.test(event.key)) return;
    if (event.target.matches("input, textarea, select") || $("dialog[open]") || !keysOn()) return;
    const list = $("#rows");
    if (event.key === "?") $("#help").showModal();
    else if (list && event.key === "j") step(list, 1);
    else if (list && event.key === "k") step(list, -1);
    else if (!press(event.key)) return;
    event.preventDefault();
  }

  // --- start

  tellAges();
  setInterval(tellAges, 20000);
  const help = $("#help");
  if (help) {
    document.addEventListener("keydown", onKey);
    const button = $("#help-button");
    button.hidden = false;
    button.addEventListener("click", () => help.showModal());
    const box = $("#keys-on");
    box.checked = keysOn();
    box.addEventListener("change", () => localStorage.setItem("keys", box.checked ? "on" : "off"));
  }
  if ($("#rows")) watchQueue($("#rows"));
  if ($("main.conversation")) { watchConversation(); watchSentences(); }
})();
