// Puts the parts together: the stream, the token, the search.

import { follow } from "./api.js";
import { askToken, state } from "./ask.js";
import { byId, say } from "./dom.js";
import { show, showCut } from "./live.js";
import { tell, wanted } from "./story.js";

let last;

function onSnapshot(snapshot) {
  last = new Date();
  byId("ask").hidden = true;
  show(snapshot);
  state("live", "Live");
}

function onCut(why) {
  state("cut", showCut(last, why));
}

let reading = new AbortController();

function readStory() {
  reading.abort();
  reading = new AbortController();
  const what = wanted(location.hash);
  if (what) tell(what, reading.signal);
  else byId("story").hidden = true;
}

function closeStory() {
  if (byId("story").hidden) return;
  history.pushState(null, "", location.pathname);
  readStory();
  byId("query").focus();
  byId("query").select();
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = byId("query").value.trim();
  if (text === "") return;
  const hash = `#/find/${encodeURIComponent(text)}`;
  if (location.hash === hash) readStory();
  else location.hash = hash;
});
byId("story-again").addEventListener("click", readStory);
byId("story-close").addEventListener("click", closeStory);
window.addEventListener("hashchange", readStory);
document.addEventListener("keydown", (event) => {
  const isWriting = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !isWriting && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    byId("query").focus();
    byId("query").select();
  } else if (event.key === "Escape" && !(isWriting && event.target.value !== "")) {
    closeStory();
  }
});

readStory();
follow(onSnapshot, onCut, async (why) => {
  await askToken(why);
  readStory();
});
