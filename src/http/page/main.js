// Puts the parts together: the stream, the token, the search.

import { follow, setToken } from "./api.js";
import { byId, say } from "./dom.js";
import { show, showCut } from "./live.js";
import { tell, wanted } from "./story.js";

let last;

function state(kind, text) {
  const link = byId("link");
  link.className = `state ${kind}`;
  say(link, text);
}

function onSnapshot(snapshot) {
  last = new Date();
  byId("ask").hidden = true;
  show(snapshot);
  state("live", "Live");
}

function onCut(why) {
  state("cut", showCut(last, why));
}

/** Shows the form for the token; done once another is given. */
function askToken(why) {
  const [ask, form, token] = [byId("ask"), byId("ask-form"), byId("token")];
  ask.hidden = false;
  say(byId("ask-why"), why);
  state("waiting", "Waiting for a token");
  token.focus();
  return new Promise((resolve) => {
    const given = (event) => {
      event.preventDefault();
      form.removeEventListener("submit", given);
      setToken(token.value.trim());
      token.value = "";
      readStory();
      resolve();
    };
    form.addEventListener("submit", given);
  });
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
follow(onSnapshot, onCut, askToken);
