// Brings what moves on the training page up to date in place: no reload, no lost focus, opened parts stay open.

import { announce, parse, tellAges } from "./common.js";

const SECONDS = 3;

async function renew() {
  const old = document.getElementById("live");
  if (!old || !("moving" in old.dataset)) return;
  try {
    const answer = await fetch("/training/live", { headers: { accept: "text/html" } });
    if (answer.ok) put(old, await answer.text());
  } catch {
    // Away for a moment: the next try will tell.
  }
  setTimeout(renew, SECONDS * 1000);
}

function put(old, html) {
  const fresh = parse(html).querySelector("#live");
  // Whoever is about to press a button in it finds it where it was.
  if (!fresh || old.contains(document.activeElement)) return;
  old.querySelectorAll("details[open]").forEach((part) => {
    const place = [...old.querySelectorAll("details")].indexOf(part);
    fresh.querySelectorAll("details")[place]?.setAttribute("open", "");
  });
  old.replaceWith(fresh);
  tellAges();
  if (!("moving" in fresh.dataset)) {
    announce("Nothing is under way any more.");
    // Adapters and their history stand in the other part of the page.
    setTimeout(() => location.replace("/training"), 1500);
  }
}

setTimeout(renew, SECONDS * 1000);
