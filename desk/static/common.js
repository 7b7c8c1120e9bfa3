// Small parts that every page uses.

export const $ = (selector, within = document) => within.querySelector(selector);
export const all = (selector, within = document) => [...within.querySelectorAll(selector)];
export const announce = (text) => { const p = $("#announce"); if (p) p.textContent = text; };
export const parse = (html) => { const t = document.createElement("template"); t.innerHTML = html; return t.content; };

// --- ages, in the words of desk/pages.py

function age(then) {
  const s = Math.max(0, Math.floor((Date.now() - then) / 1000));
  if (s < 60) return "now";
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  const days = Math.floor(s / 86400);
  return days === 1 ? "1 day" : `${days} days`;
}

export function tellAges() {
  for (const time of all("time[data-age]")) {
    const then = new Date(time.dateTime);
    const said = age(then);
    const text = time.dataset.age === "age" ? said : said === "now" ? "just now" : `${said} ago`;
    if (time.textContent !== text) time.textContent = text;
    time.title = then.toLocaleString();
  }
}
