// What the pages do beyond plain forms: live rows, keys, forms that stay on the page. Each page loads its own part.
// Everything that matters works without this file.
import { $, tellAges } from "./common.js";
import { watchKeys } from "./keys.js";

document.documentElement.classList.add("js");
tellAges();
setInterval(tellAges, 20000);
if ($("#rows")) {
  const { watchList } = await import("./list.js");
  watchKeys(watchList($("#rows")));
} else {
  watchKeys();
}
if ($("main.conversation")) {
  const { watchConversation, watchSentences } = await import("./conversation.js");
  watchConversation();
  watchSentences();
}
