import { $, all, announce, BACKGROUND, parse, tellAges } from "./common.js";
import { listen } from "./live.js";

// --- the list: rows come, change and go, and never move under a cursor, a focus or an open menu

export class List {
  constructor(node) {
    this.node = node;
    this.query = node.dataset.query;
    this.later = "later" in node.dataset;
    this.more = "more" in node.dataset;
    this.news = $("#news");
    this.pending = new Map(); // changes that wait until nobody points at the rows they would move
    this.own = new Set(); // conversations that this person is changing right now
    this.held = null; // the row whose menu is open
    this.present = new Map();
    this.picked = new Set();
    this.stale = false;
    this.staleTimer = 0;
    for (const row of this.rows()) this.remember(row);
  }

  rows() { return all(".row", this.node); }
  row(id) { return document.getElementById(`row-${id}`); }

  // The row that keys act on.
  current() {
    const at = document.activeElement;
    return this.node.contains(at) ? at.closest(".row") : null;
  }

  focus(row) {
    const link = row && $(".row-link", row);
    if (!link) return;
    link.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }

  step(by) {
    const rows = this.rows();
    if (!rows.length) return;
    const at = rows.indexOf(this.current());
    this.focus(rows[at < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, at + by))]);
  }

  remember(row) {
    const who = $(".present-who", row);
    if (who) this.present.set(row.dataset.id, who.textContent.split(", "));
    if ($(".row-pick input", row).checked) this.picked.add(row.dataset.id);
  }

  // --- one row

  make(change) {
    const row = parse(change.html).firstElementChild;
    if (change.order) row.dataset.order = change.order;
    this.dress(row);
    return row;
  }

  // What the page knows of a row and its HTML does not.
  dress(row) {
    this.tellPresent(row);
    $(".row-pick input", row).checked = this.picked.has(row.dataset.id);
    tellAges(row);
  }

  tellPresent(row) {
    const names = (this.present.get(row.dataset.id) || []).filter((name) => name !== this.node.dataset.name);
    const shown = $(".present", row);
    if ((shown ? $(".present-who", shown).textContent : "") === names.join(", ")) return;
    if (shown) shown.remove();
    if (!names.length) return;
    const box = $("#present").content.firstElementChild.cloneNode(true);
    $(".present-who", box).textContent = names.join(", ");
    box.append(names.length > 1 ? " are here" : " is here");
    $(".row-meta", row).prepend(box);
  }

  replace(old, change) {
    const row = this.make(change);
    if (!change.order) row.dataset.order = old.dataset.order;
    const at = old.contains(document.activeElement) ? document.activeElement.className : null;
    old.replaceWith(row);
    if (this.held === old) this.held = row;
    if (at !== null) ((at && row.getElementsByClassName(at)[0]) || $(".row-link", row)).focus({ preventScroll: true });
    return row;
  }

  remove(row) {
    if (row === this.current() || row === this.held || document.activeElement === document.body) {
      this.focus(row.nextElementSibling || row.previousElementSibling);
    }
    row.remove();
  }

  // --- changes that come by themselves

  // The row that must stay where it is: focused, under the cursor, with its menu open, or the first one in sight.
  anchor() {
    const kept = [this.current(), this.held, $(".row:hover", this.node)].filter((row) => row && row.isConnected);
    if (kept.length) return kept.reduce((a, b) => (a.dataset.order > b.dataset.order ? a : b));
    if (this.node.getBoundingClientRect().top >= 0) return null;
    return this.rows().find((row) => row.getBoundingClientRect().bottom > 0) || null;
  }

  // Where a row belongs: the other row it stands before, null for the end, undefined for "on another page".
  place(order, old) {
    const rows = this.rows().filter((row) => row !== old);
    if (this.later && (!rows.length || order < rows[0].dataset.order)) return undefined;
    return rows.find((row) => row.dataset.order > order) || (this.more ? undefined : null);
  }

  // Whether it could be shown; if not, it has to wait.
  apply(change, { force = false } = {}) {
    const old = this.row(change.id);
    if (old && Number(old.dataset.stamp) >= change.stamp) return true;
    if (change.here === null || (old && change.here && old.dataset.order === change.order)) {
      if (old) this.replace(old, change);
      return true;
    }
    const before = change.here ? this.place(change.order, old) : undefined;
    if (!old && before === undefined) return true;
    const kept = force ? null : this.anchor();
    if (kept && ((old && old.dataset.order <= kept.dataset.order) || (before !== undefined && change.order <= kept.dataset.order))) {
      return false;
    }
    if (before === undefined) {
      this.remove(old);
      return true;
    }
    const row = old ? this.replace(old, change) : this.make(change);
    const focused = row.contains(document.activeElement);
    this.node.insertBefore(row, before);
    row.classList.add("fresh");
    if (focused) $(".row-link", row).focus({ preventScroll: true });
    if (!old) announce(`New: ${$("h2", row).textContent}`);
    return true;
  }

  // What this person did: shown at once, and where the row stands.
  applyOwn(change) {
    this.pending.delete(change.id);
    const old = this.row(change.id);
    if (!old) {
      if (change.here) this.apply(change, { force: true });
    } else if (change.here === false) {
      this.remove(old);
    } else {
      const place = old.dataset.order;
      const row = this.replace(old, change);
      if (row.dataset.order !== place) { row.dataset.belongs = row.dataset.order; row.dataset.order = place; }
    }
    this.tell();
  }

  // Rows that this person changed go to their place once nobody points at any.
  tidy() {
    for (const row of all("[data-belongs]", this.node)) {
      row.dataset.order = row.dataset.belongs;
      delete row.dataset.belongs;
      const before = this.place(row.dataset.order, row);
      if (before !== undefined) this.node.insertBefore(row, before);
    }
  }

  tell() {
    for (const [id, change] of this.pending) {
      const old = this.row(id);
      if (old && Number(old.dataset.stamp) >= change.stamp) this.pending.delete(id);
    }
    const waiting = [...this.pending.values()].filter((c) => !this.own.has(c.id));
    const fresh = waiting.filter((c) => !this.row(c.id) && c.here).length;
    const text = this.stale ? "Much has changed: show" : fresh ? `${fresh} new` : waiting.length ? `${waiting.length} changed` : "";
    if (text && this.news.hidden) announce(text);
    this.news.textContent = text;
    this.news.hidden = !text;
    $("#empty").hidden = $(".row", this.node) !== null;
  }

  settle({ force = false } = {}) {
    for (const [id, change] of this.pending) if (this.apply(change, { force })) this.pending.delete(id);
    this.tell();
  }

  count(here) {
    for (const node of all("#count, #matching, .here-count")) node.textContent = here;
  }

  // --- the whole list anew

  async refetch({ force = false } = {}) {
    this.staleTimer = 0;
    if (!force && this.anchor()) { this.stale = true; this.tell(); return; }
    const response = await fetch(location.href, { headers: force ? {} : BACKGROUND }).catch(() => null);
    if (!response || !response.ok) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = $("#rows", page);
    if (!fresh) return;
    const current = this.current();
    const rows = this.rows();
    const at = rows.indexOf(current);
    this.node.replaceChildren(...fresh.children);
    this.present.clear();
    for (const row of this.rows()) { this.remember(row); this.dress(row); }
    this.pending.clear();
    this.stale = false;
    this.more = "more" in fresh.dataset;
    for (const part of ["#empty", "#next", ".views"]) $(part).replaceWith($(part, page));
    this.count($("#count", page).textContent);
    if (current) this.focus(this.row(current.dataset.id) || this.rows()[Math.min(at, this.rows().length - 1)]);
    this.tell();
  }

  watch() {
    this.news.addEventListener("click", () => {
      if (this.stale) { location.reload(); return; }
      this.settle({ force: true });
      scrollTo({ top: 0 });
      this.focus($(".row", this.node));
    });
    setInterval(() => {
      if (this.anchor()) return;
      this.tidy();
      if (this.pending.size) this.settle();
    }, 1000);
    listen(
      this.node.dataset.since,
      ({ rows }) => {
        for (const change of rows) this.pending.set(change.id, change);
        this.settle();
      },
      // Not all pages at once.
      () => { this.staleTimer ||= setTimeout(() => this.refetch(), 1000 + 2000 * Math.random()); },
      {
        counts: ({ tabs, here }) => {
          for (const node of all("[data-count]")) node.textContent = tabs[node.dataset.count] ?? "";
          this.count(here);
        },
        presence: (said) => {
          if (said.all) this.present = new Map(Object.entries(said.all));
          for (const [id, names] of Object.entries(said.now || {})) this.present.set(id, names);
          for (const row of this.rows()) this.tellPresent(row);
        },
      },
    );
  }
}
