// What each page has at its top: the state of the connection, and the form for a token.

import { setToken } from "./api.js";
import { byId, say } from "./dom.js";

/** Shows how the connection is: live, waiting or cut. */
export function state(kind, text) {
  const link = byId("link");
  link.className = `state ${kind}`;
  say(link, text);
}

/** Shows the form for the token; done once another is given. */
export function askToken(why) {
  const token = byId("token");
  byId("ask").hidden = false;
  say(byId("ask-why"), why);
  state("waiting", "Waiting for a token");
  token.focus();
  return new Promise((resolve) => {
    const given = (event) => {
      event.preventDefault();
      setToken(token.value.trim());
      token.value = "";
      resolve();
    };
    byId("ask-form").addEventListener("submit", given, { once: true });
  });
}
