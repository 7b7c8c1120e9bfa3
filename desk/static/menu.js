import { $, all } from "./common.js";

// --- a menu beside a row: arrows, digits or a letter choose, Esc closes

let close = () => {};

export const closeMenu = () => close();
export const menuOpen = () => $(".menu") !== null;

// `items`: {label | nodes, value, key, checked, name} or "-"; `pick` gets the value of the one that is chosen.
export function openMenu(row, title, items, pick, { at = null, done = () => {} } = {}) {
  close();
  const menu = document.createElement("div");
  menu.className = "menu";
  menu.setAttribute("role", "menu");
  menu.setAttribute("aria-label", title);
  const heading = document.createElement("h3");
  heading.textContent = title;
  menu.append(heading);
  for (const item of items) menu.append(item === "-" ? document.createElement("hr") : button(item));
  if (at) menu.append(at);
  document.body.append(menu);
  place(menu, $(".row-menu", row));

  const buttons = all('button[role^="menuitem"]', menu);
  const away = (event) => { if (!menu.contains(event.target)) close(); };
  const choose = (value) => { close(); pick(value); };
  close = () => {
    close = () => {};
    document.removeEventListener("pointerdown", away, true);
    const inside = menu.contains(document.activeElement);
    menu.remove();
    done(inside);
  };
  document.addEventListener("pointerdown", away, true);
  menu.addEventListener("click", (event) => {
    const chosen = event.target.closest("button[value]");
    if (chosen) choose(chosen.value);
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape" || event.key === "Tab") {
      event.preventDefault();
      event.stopPropagation();
      close();
      return;
    }
    if (event.target.matches("input")) return;
    event.stopPropagation();
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moved = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    const here = buttons.indexOf(document.activeElement);
    if (moved) buttons[(here + moved + buttons.length) % buttons.length].focus();
    else if (event.key === "Home") buttons[0].focus();
    else if (event.key === "End") buttons.at(-1).focus();
    else {
      const found = buttons.find((b) => b.dataset.key === event.key)
        || (event.key.length === 1 && event.key !== " " && buttons.find((b) => b.dataset.name.startsWith(event.key.toLowerCase())));
      if (!found) return;
      if (found.dataset.key === event.key) choose(found.value); else found.focus();
    }
    event.preventDefault();
  });
  (buttons.find((b) => b.getAttribute("aria-checked") === "true") || buttons[0]).focus();
}

function button({ label = "", nodes = [], value, key = "", checked = null, name = "" }) {
  const made = document.createElement("button");
  made.type = "button";
  made.value = value;
  made.tabIndex = -1;
  made.className = name;
  made.setAttribute("role", checked === null ? "menuitem" : "menuitemradio");
  if (checked !== null) made.setAttribute("aria-checked", String(checked));
  made.append(...nodes.map((node) => node.cloneNode(true)), label);
  made.dataset.name = made.textContent.trim().toLowerCase();
  if (key) {
    made.dataset.key = key;
    const shown = document.createElement("kbd");
    shown.textContent = key;
    shown.setAttribute("aria-hidden", "true");
    made.append(shown);
  }
  return made;
}

function place(menu, anchor) {
  const at = anchor.getBoundingClientRect();
  const { offsetWidth: width, scrollHeight: height } = menu;
  const room = { below: innerHeight - at.bottom - 12, above: at.top - 12 };
  const under = room.below >= height || room.below >= room.above;
  menu.style.maxHeight = `${Math.max(160, under ? room.below : room.above)}px`;
  const left = Math.max(8, Math.min(at.right - width, document.documentElement.clientWidth - width - 8));
  const top = under ? at.bottom + 4 : Math.max(8, at.top - menu.offsetHeight - 4);
  menu.style.left = `${left + scrollX}px`;
  menu.style.top = `${top + scrollY}px`;
}
