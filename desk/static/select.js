import { $, all, announce } from "./common.js";
import { post, tell } from "./act.js";

// --- selected rows, and the bar of what is done with all of them

export class Selection {
  constructor(list) {
    this.list = list;
    this.bar = $("#bulk");
    this.whole = $("#all-matching");
    this.last = null;
    this.busy = false;
  }

  show() {
    const number = this.list.picked.size;
    const whole = this.whole.checked;
    this.bar.classList.toggle("on", number > 0);
    $("#unselect").hidden = number === 0;
    const text = whole ? `All ${$("#matching").textContent}` : `${number} selected`;
    if ($("#selected").textContent !== text) $("#selected").textContent = text;
  }

  clear() {
    this.list.picked.clear();
    this.whole.checked = false;
    for (const box of all(".row-pick input:checked", this.list.node)) box.checked = false;
    this.close();
    this.show();
  }

  close() {
    const open = all(".pop[open]", this.bar);
    for (const pop of open) pop.open = false;
    return open.length > 0;
  }

  // Esc: first an open menu, then the selection.
  escape() {
    if (this.close()) return true;
    if (!this.list.picked.size) return false;
    this.clear();
    announce("Nothing is selected.");
    return true;
  }

  pick(box, { range = false } = {}) {
    const rows = this.list.rows();
    const at = rows.indexOf(box.closest(".row"));
    const from = range && this.last ? rows.indexOf(this.last) : at;
    const changed = from < 0 ? [rows[at]] : rows.slice(Math.min(at, from), Math.max(at, from) + 1);
    for (const row of changed) {
      $(".row-pick input", row).checked = box.checked;
      if (box.checked) this.list.picked.add(row.dataset.id); else this.list.picked.delete(row.dataset.id);
    }
    this.last = rows[at];
    if (!box.checked) this.whole.checked = false;
    this.show();
    announce(`${this.list.picked.size} selected`);
  }

  async send(button) {
    if (this.busy) return;
    const fields = new URLSearchParams(new FormData(this.bar, button));
    fields.delete("id");
    for (const id of this.list.picked) fields.append("id", id);
    this.busy = true;
    for (const other of all("button", this.bar)) other.disabled = true;
    const said = await post("/bulk", fields);
    for (const other of all("button[name], #unselect", this.bar)) other.disabled = false;
    this.busy = false;
    if (said.error) { tell(said.error, { failed: true }); return; }
    this.clear();
    await this.list.refetch({ force: true });
    const text = said.failed && said.why ? `${said.said} ${said.why}` : said.said;
    tell(text, { activity: said.activity, failed: said.failed > 0 });
  }

  watch() {
    let range = false;
    this.list.node.addEventListener("click", (event) => { range = event.shiftKey; }, true);
    this.list.node.addEventListener("change", (event) => {
      if (event.target.matches(".row-pick input")) this.pick(event.target, { range });
    });
    this.whole.addEventListener("change", () => this.show());
    $("#unselect").addEventListener("click", () => this.clear());
    this.bar.addEventListener("submit", (event) => {
      event.preventDefault();
      if (event.submitter && event.submitter.value) this.send(event.submitter);
    });
    document.addEventListener("pointerdown", (event) => { if (!event.target.closest(".pop")) this.close(); });
    this.show();
  }
}

// --- filters go off by themselves; where the focus was, it is again

export function watchFilters(form) {
  const place = (field) => `#filters [name="${field.name}"]${field.type === "checkbox" ? `[value="${field.value}"]` : ""}`;
  const kept = sessionStorage.getItem("filter");
  sessionStorage.removeItem("filter");
  const again = kept && $(kept);
  if (again && again.getClientRects().length) again.focus({ preventScroll: true });
  form.addEventListener("change", (event) => {
    sessionStorage.setItem("filter", place(event.target));
    form.requestSubmit();
  });
  for (const one of [form, $(".search")]) {
    one.addEventListener("submit", () => {
      const empty = all("input, select", one).filter((field) => field.name && !field.value);
      for (const field of empty) field.disabled = true;
      // The page may come back from the browser's memory.
      setTimeout(() => { for (const field of empty) field.disabled = false; }, 0);
    });
  }
}
