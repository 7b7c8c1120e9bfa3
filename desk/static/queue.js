import { $, all, announce, parse, tellAges } from "./common.js";
import { listen } from "./live.js";

// --- queue: rows come, change and go, and never move under a cursor or a focus

export function watchQueue(list) {
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

export function step(list, by) {
  const links = all(".row-link", list);
  if (!links.length) return;
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? 0 : Math.min(links.length - 1, Math.max(0, at + by));
  links[next].focus();
  links[next].closest(".row").scrollIntoView({ block: "nearest" });
}
