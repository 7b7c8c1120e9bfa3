import { $ } from "./common.js";

// --- keys

const keysOn = () => localStorage.getItem("keys") !== "off";

function press(key) {
  const target = $(`[data-key="${CSS.escape(key)}"]`);
  if (!target) return false;
  if (target.matches("select")) {
    target.focus();
  } else if (target.matches("summary")) {
    target.parentElement.open = true;
    const field = $('textarea, button, select, input:not([type="hidden"])', target.parentElement);
    if (field) field.focus();
    if (field && field.matches("textarea")) field.setSelectionRange(field.value.length, field.value.length);
  } else {
    target.click();
  }
  return true;
}

// `list` answers keys of the list: key(key) and escape() say whether they did something.
function onKey(event, list) {
  const edit = event.target.closest && event.target.closest(".edit, .snooze");
  if (edit && event.key === "Escape") {
    edit.open = false;
    $("summary", edit).focus();
    return;
  }
  if (event.target.matches(".row-pick input") && event.key === "Enter") {
    event.preventDefault();
    $(".row-link", event.target.closest(".row")).click();
    return;
  }
  if (event.key === "Escape" && list && !$("dialog[open]")) {
    if (event.target.matches("#q")) event.target.blur();
    else if (!list.escape()) return;
    event.preventDefault();
    return;
  }
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("textarea")) {
    event.preventDefault();
    event.target.form.requestSubmit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat && !/^[jk]$/.test(event.key)) return;
  if (event.target.matches('input:not([type="checkbox"]), textarea, select') || $("dialog[open]") || !keysOn()) return;
  if (event.key === "?") $("#help").showModal();
  else if (!(list && list.key(event.key)) && !press(event.key)) return;
  event.preventDefault();
}

export function watchKeys(list = null) {
  const help = $("#help");
  if (!help) return;
  document.addEventListener("keydown", (event) => onKey(event, list));
  const button = $("#help-button");
  button.hidden = false;
  button.addEventListener("click", () => help.showModal());
  const box = $("#keys-on");
  box.checked = keysOn();
  box.addEventListener("change", () => localStorage.setItem("keys", box.checked ? "on" : "off"));
}
