import { $ } from "./common.js";
import { step } from "./queue.js";

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

export function watchKeys() {
  const help = $("#help");
  if (!help) return;
  document.addEventListener("keydown", onKey);
  const button = $("#help-button");
  button.hidden = false;
  button.addEventListener("click", () => help.showModal());
  const box = $("#keys-on");
  box.checked = keysOn();
  box.addEventListener("change", () => localStorage.setItem("keys", box.checked ? "on" : "off"));
}
