// Asks for the state of the cluster again and again, and says when there is no answer. What is drawn is for render.js.

import { draw } from "./render.js";

const EVERY_MS = 2000;
// How long one answer may take; the server itself gives up on metadata sooner.
const LIMIT_MS = 8000;
// A state that is older than this is marked, even while an answer is awaited.
const OLD_MS = 6000;

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const byId = (id) => document.getElementById(id);

let answered = null;
let failure = "";
let asking = false;
let timer = 0;

async function ask() {
  const response = await fetch("../api/v1/status/cluster", {
    cache: "no-store",
    headers: { Accept: "application/json" },
    signal: AbortSignal.timeout(LIMIT_MS),
  });
  let body = null;
  try {
    body = await response.json();
  } catch {
    // Something else than Tricord answers, or the answer broke off.
  }
  if (!response.ok || body?.status !== "success") {
    throw new Error(body?.error || `HTTP status ${response.status}`);
  }
  return body.data;
}

async function poll() {
  clearTimeout(timer);
  if (asking || document.hidden) {
    return;
  }
  asking = true;
  try {
    const view = await ask();
    answered = new Date();
    failure = "";
    draw(view);
  } catch (error) {
    failure = reason(error);
  }
  asking = false;
  showAge();
  timer = setTimeout(poll, EVERY_MS);
}

function reason(error) {
  if (error.name === "TimeoutError") {
    return `no answer within ${LIMIT_MS / 1000} s`;
  }
  return error instanceof TypeError ? "the proxy cannot be reached" : error.message;
}

function setText(id, text) {
  if (byId(id).textContent !== text) {
    byId(id).textContent = text;
  }
}

function showAge() {
  const isOld = answered !== null && (failure !== "" || Date.now() - answered.getTime() > OLD_MS);
  let since = "";
  if (answered === null && failure !== "") {
    since = "No answer yet.";
  } else if (isOld) {
    since = `Not answered since ${clock.format(answered)}. Everything below is as it was then.`;
  }
  // The first of the two is read out by screen readers, so it must not change with each failure.
  setText("since", since);
  setText("why", failure === "" ? "" : `Last failure: ${failure}`);
  byId("stale").hidden = since === "";
  document.body.classList.toggle("old", isOld);
  const title = document.title.replace(/^\(old\) /, "");
  document.title = isOld ? `(old) ${title}` : title;
  if (answered !== null) {
    setText("when", `${isOld ? "old, from" : "as of"} ${clock.format(answered)}`);
  }
}

// A hidden page asks nothing; it asks at once when it is looked at again.
document.addEventListener("visibilitychange", () => {
  showAge();
  poll();
});
setInterval(showAge, 1000);
poll();
