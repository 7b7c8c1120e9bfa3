// Small parts that every page uses.

export const $ = (selector, within = document) => within.querySelector(selector);
export const all = (selector, within = document) => [...within.querySelectorAll(selector)];
export const announce = (text) => { const p = $("#announce"); if (p) p.textContent = text; };
export const parse = (html) => { const t = document.createElement("template"); t.innerHTML = html; return t.content; };
// Says that nobody did this: an open page asked by itself.
export const BACKGROUND = { "X-Background": "1" };

// --- ages and times, in the words of desk/pages.py

function age(then) {
  const s = Math.max(0, Math.floor((Date.now() - then) / 1000));
  if (s < 60) return "now";
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h`;
  const days = Math.floor(s / 86400);
  return days === 1 ? "1 day" : `${days} days`;
}

function span(s) {
  if (s < 60) return "1 min";
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h`;
  return `${Math.floor(s / 86400)} days`;
}

function tellDue(time) {
  const s = Math.trunc((new Date(time.dateTime) - Date.now()) / 1000);
  say(time, s > 0 ? `due in ${span(s)}` : `${span(-s)} overdue`);
  const box = time.closest(".sla");
  if (box) box.className = `sla ${s <= 0 ? "late" : s < 3600 ? "soon" : "later"}`;
}

const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };

export function tellAges(within = document) {
  for (const time of all("time[data-age]", within)) {
    const then = new Date(time.dateTime);
    const said = age(then);
    say(time, time.dataset.age === "age" ? said : said === "now" ? "just now" : `${said} ago`);
    time.title = then.toLocaleString();
  }
  for (const time of all("time[data-due]", within)) tellDue(time);
}
