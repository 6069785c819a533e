// The common script of all pages: receives changes, shows counts and faults, and sends actions.
// Data of deliveries is inserted as text, never as markup.

const listeners = { rows: [], status: [] };
let status = null; // the last status that was received

export function on(name, listen) {
  listeners[name].push(listen);
  if (name === "status" && status) listen(status);
}

// Sends an action. An error is returned as {error}.
export async function post(path, fields) {
  try {
    const answer = await fetch(path, { method: "POST", body: new URLSearchParams(fields) });
    const said = await answer.json();
    return answer.ok ? said : { error: said.error ?? said.message ?? `${answer.status}` };
  } catch (error) {
    return { error: `the stack does not answer (${error.message})` };
  }
}

// Creates an element that contains only text.
export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const live = document.getElementById("live");

// Receives changes after `after`, which is the id of the run and the number of a change.
export function connect(after) {
  const source = new EventSource(after ? `/live?after=${encodeURIComponent(after)}` : "/live");
  const say = (state, text) => {
    live.dataset.state = state;
    live.textContent = text;
  };
  source.addEventListener("open", () => say("on", "live"));
  source.addEventListener("error", () => say("off", "stopped"));
  source.addEventListener("reload", () => {
    source.close();
    location.reload();
  });
  for (const name of ["rows", "status"]) {
    source.addEventListener(name, (event) => {
      const said = JSON.parse(event.data);
      if (said === null) return;
      if (name === "status") status = said;
      for (const listen of listeners[name]) listen(said);
    });
  }
  addEventListener("pagehide", () => source.close());
}

on("status", (status) => {
  for (const state of ["pending", "failed", "quarantined"]) {
    const place = document.getElementById(state);
    place.textContent = status[state];
    place.parentElement.classList.toggle("some", status[state] > 0);
  }
  const faults = document.getElementById("faults");
  faults.hidden = status.faults.length === 0;
  faults.replaceChildren(
    ...status.faults.map((fault) => {
      const line = element("span", "", `${fault.label} `);
      const off = element("button", "", "turn off");
      off.type = "button";
      off.addEventListener("click", () => post("/do/fault", { name: fault.name, on: false }));
      line.append(off);
      return line;
    }),
  );
});

// Whether a key is for the page, and not for a field that is being edited.
export function isForThePage(event) {
  const writes = event.target.matches?.("input:not([type=checkbox]), select, textarea");
  return !writes && !event.ctrlKey && !event.metaKey && !event.altKey;
}

if (document.body.dataset.page !== "list") {
  connect();
  addEventListener("keydown", (event) => {
    if (!isForThePage(event)) return;
    const link = { j: "a[rel=prev]", k: "a[rel=next]" }[event.key];
    if (link) document.querySelector(link)?.click();
    if (event.key === "Escape") {
      // Back to the list with its filters.
      const from = document.referrer && new URL(document.referrer);
      if (from && from.origin === location.origin && from.pathname === "/") history.back();
      else location.assign("/");
    }
  });
}
