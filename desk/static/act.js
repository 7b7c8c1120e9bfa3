import { $, all, announce } from "./common.js";
import { openMenu } from "./menu.js";

// --- what a person does with rows of the list, by key, menu or button

const PRIORITIES = ["urgent", "high", "normal", "low"];
const SIGNED_OUT = "Not done: you are signed out. Sign in in another tab, then try again.";
const NO_ANSWER = "Not done: the desk did not answer. Try again in a moment.";

// The answer as JSON; its `error` is a sentence.
export async function post(path, fields) {
  try {
    const body = fields instanceof URLSearchParams ? fields : new URLSearchParams(fields);
    const response = await fetch(path, { method: "POST", headers: { Accept: "application/json" }, body });
    if (response.status === 401) return { error: SIGNED_OUT };
    const said = await response.json();
    return response.ok ? said : { error: said.error || NO_ANSWER };
  } catch {
    return { error: NO_ANSWER };
  }
}

// One sentence at the bottom, with a way to undo it.
export function tell(text, { activity = null, failed = false } = {}) {
  const box = $("#told");
  $("#told-text").textContent = text;
  box.hidden = !text;
  box.classList.toggle("failed", failed);
  const undo = $("#undo");
  undo.hidden = !activity;
  undo.elements.activity.value = activity || "";
  announce(text);
}

export class Actions {
  constructor(list) {
    this.list = list;
  }

  // What one key does with a row, or with the page; false if it is none of ours.
  key(key) {
    const list = this.list;
    if (key === "j" || key === "k") return list.step(key === "j" ? 1 : -1), true;
    if (key === "z") return this.undo(), true;
    if (key === "/") return $("#q").focus(), $("#q").select(), true;
    if (!/^[a1234cydsex]$/.test(key)) return false;
    const row = list.current();
    if (row) this.act(row, key);
    else tell("No conversation is chosen. Press j to go to the first one.");
    return true;
  }

  act(row, key) {
    if (key >= "1" && key <= "4") this.correct(row, "priority", PRIORITIES[key - 1]);
    else if (key === "a") this.send(row, "assign", { to: "me" });
    else if (key === "c") this.menu(row, "category");
    else if (key === "s") this.menu(row, "snooze");
    else if (key === "y") this.send(row, "confirm");
    else if (key === "d") this.send(row, "done");
    else if (key === "e") location.assign(`/conversations/${row.dataset.id}#edit-summary`);
    else if (key === "x") this.pick(row);
  }

  pick(row) {
    $(".row-pick input", row).click();
    this.list.focus(row);
  }

  correct(row, field, value) {
    this.send(row, "correct", { field, value, before: row.dataset[field] });
  }

  // --- one conversation

  async send(row, action, fields = {}) {
    const id = Number(row.dataset.id);
    if (this.list.own.has(id)) return;
    this.list.own.add(id);
    const title = $("h2", row).textContent.trim();
    const said = await post(`/conversations/${id}/${action}`, fields);
    const now = await this.row(id);
    if (now) this.list.applyOwn(now.row);
    this.list.own.delete(id);
    this.list.tell();
    if (said.error) tell(said.error, { failed: true });
    else tell(...this.words(action, fields, said, title, now));
  }

  words(action, fields, said, title, now) {
    const activity = now ? now.activity : null;
    if (said.said !== undefined) return [said.said, { activity: said.activity }];
    if (action === "confirm" && said.confirmation_id === null) return ["There is no brief yet that could be right."];
    if (action === "correct" && said.correction_id === null) return [`The ${fields.field} is ${fields.value} already.`];
    return [(now && now.said) || `Done: “${title}”.`, { activity }];
  }

  async row(id) {
    try {
      const response = await fetch(`/conversations/${id}/row?${this.list.query}`, { headers: { Accept: "application/json" } });
      return response.ok ? await response.json() : null;
    } catch {
      return null;
    }
  }

  async undo() {
    const activity = $("#undo").elements.activity.value;
    const said = await post("/undo", activity ? { activity } : {});
    if (said.error) { tell(said.error, { failed: true }); return; }
    const ids = said.conversations;
    if (ids.length > 5) await this.list.refetch({ force: true });
    else for (const id of ids) {
      const now = await this.row(id);
      if (now) this.list.applyOwn(now.row);
    }
    const back = this.list.row(ids[0]);
    if (back) this.list.focus(back);
    tell(said.said);
  }

  // --- menus beside a row

  open(row, title, items, pick, at = null) {
    this.list.held = row;
    openMenu(row, title, items, pick, {
      at,
      done: (inside) => {
        const held = this.list.held;
        this.list.held = null;
        if (inside && held && held.isConnected) this.list.focus(held);
      },
    });
  }

  // The choices are those of the bar for selected rows.
  choices(name) {
    return all(`.pop[data-menu="${name}"] button`)
      .filter((button) => button.value !== "snooze:at")
      .map((button) => ({ nodes: [...button.childNodes], value: button.value.slice(name.length + 1) }));
  }

  menu(row, name) {
    const items = this.choices(name).map((item, n) => ({ ...item, key: n < 9 ? String(n + 1) : "" }));
    if (name === "category") {
      for (const item of items) item.checked = item.value === row.dataset.category;
      this.open(row, "Category", items, (value) => this.correct(row, "category", value));
    } else if (name === "assign") {
      this.open(row, "Assign", items, (value) => this.send(row, "assign", { to: value }));
    } else if (name === "snooze") {
      this.open(row, "Put off until", items, (value) => this.snooze(row, value), this.at());
    }
  }

  at() {
    const box = document.createElement("div");
    box.className = "at";
    const [label, field] = [$('label[for="snooze-at"]').cloneNode(true), $("#snooze-at").cloneNode()];
    field.id = label.htmlFor = "menu-at";
    field.removeAttribute("name");
    const go = document.createElement("button");
    go.type = "button";
    go.value = "at";
    go.textContent = "Until then";
    field.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); go.click(); } });
    field.addEventListener("input", () => { go.value = field.value || "at"; });
    box.append(label, field, go);
    return box;
  }

  snooze(row, until) {
    if (until === "at") tell("No date and time is given.", { failed: true });
    else this.send(row, "snooze", { until });
  }

  everything(row) {
    const priorities = this.choices("priority").map((item, n) => (
      { ...item, key: String(n + 1), checked: item.value === row.dataset.priority, name: item.value }));
    const items = [
      { label: "Assign to me", value: "a", key: "a" }, { label: "Assign to …", value: "assign" },
      { label: "Snooze …", value: "s", key: "s" }, { label: "Category …", value: "c", key: "c" },
      "-", ...priorities, "-",
      { label: "Right as it is", value: "y", key: "y" }, { label: "Edit the summary", value: "e", key: "e" },
      row.dataset.state === "open" ? null : { label: "Back to the queue", value: "reopen" },
      row.dataset.state === "done" ? null : { label: "Done", value: "d", key: "d" },
    ].filter(Boolean);
    this.open(row, "Actions", items, (value) => {
      if (PRIORITIES.includes(value)) this.correct(row, "priority", value);
      else if (value === "assign") this.menu(row, "assign");
      else if (value === "reopen") this.send(row, "reopen");
      else this.act(row, value);
    });
  }

  watch() {
    this.list.node.addEventListener("click", (event) => {
      const button = event.target.closest(".row-menu");
      if (button) this.everything(button.closest(".row"));
    });
    $("#undo").addEventListener("submit", (event) => { event.preventDefault(); this.undo(); });
    // What was done is told once, not again with each reload.
    const address = new URL(location.href);
    for (const name of ["did", "failed", "done"]) address.searchParams.delete(name);
    if (address.href !== location.href) history.replaceState(null, "", address);
  }
}
