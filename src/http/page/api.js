// Asks the verifier: with the token where one is needed, which this tab alone keeps.

const TOKEN = "stock-verifier-token";
/** Without anything for so long the stream counts as cut: there is a snapshot each second. */
const SILENCE_MS = 5_000;
/** The pauses between tries, the last one again and again. */
const PAUSES_MS = [500, 1_000, 2_000, 3_000];

export function setToken(text) {
  sessionStorage.setItem(TOKEN, text);
}

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { authorization: `Bearer ${token}` } : {};
}

/** What was answered instead of what was asked for. */
export class Refused extends Error {
  constructor(status, kind, text) {
    super(text);
    this.status = status;
    this.kind = kind;
  }
}

async function refused(response) {
  const problem = await response.json().catch(() => ({}));
  const text = [problem.title ?? `status ${response.status}`, problem.detail].filter(Boolean).join(": ");
  return new Refused(response.status, (problem.type ?? "").split(":").pop(), text);
}

/** A JSON answer. */
export async function get(path, signal) {
  const response = await fetch(path, { headers: headers(), cache: "no-store", signal });
  if (!response.ok) throw await refused(response);
  return response.json();
}

/** Reads server-sent events until the stream ends. fetch and not EventSource, which cannot send a token. */
async function read(body, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const lines = event.split("\n");
      const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, ""));
      if (data.length > 0) onEvent(JSON.parse(data.join("\n")));
    }
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Follows the stream for good. `onSnapshot` is given each snapshot; `onCut` why there are none for now; `askToken` resolves
 * once there is another token to try.
 */
export async function follow(onSnapshot, onCut, askToken) {
  for (let tries = 0; ; tries += 1) {
    const cut = new AbortController();
    let silence;
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => cut.abort(), SILENCE_MS);
    };
    try {
      listen();
      const response = await fetch("v1/live", { headers: headers(), cache: "no-store", signal: cut.signal });
      if (!response.ok) throw await refused(response);
      await read(response.body, (snapshot) => {
        listen();
        tries = 0;
        onSnapshot(snapshot);
      });
      onCut("the verifier ended it");
    } catch (error) {
      clearTimeout(silence);
      if (error instanceof Refused && error.status === 401) {
        await askToken(sessionStorage.getItem(TOKEN) ? error.message : "");
        tries = -1;
        continue;
      }
      onCut(error instanceof Refused ? error.message : "the verifier does not answer");
    } finally {
      clearTimeout(silence);
    }
    await pause(PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)]);
  }
}
