// What the pages do beyond plain forms: live rows, keys, forms that stay on the page.
// Everything that matters works without this file.
import { $, tellAges } from "./common.js";
import { watchConversation, watchSentences } from "./conversation.js";
import { watchKeys } from "./keys.js";
import { watchQueue } from "./queue.js";

tellAges();
setInterval(tellAges, 20000);
watchKeys();
if ($("#rows")) watchQueue($("#rows"));
if ($("main.conversation")) { watchConversation(); watchSentences(); }
