import { Actions } from "./act.js";
import { $ } from "./common.js";
import { List } from "./queue.js";
import { Selection, watchFilters } from "./select.js";

// The list with all that is done in it. Returns what keys are handed to.
export function watchList(node) {
  const list = new List(node);
  const actions = new Actions(list);
  const selection = new Selection(list);
  for (const part of [list, actions, selection]) part.watch();
  watchFilters($("#filters"));
  node.dataset.ready = "";
  return { key: (key) => actions.key(key), escape: () => selection.escape() };
}
