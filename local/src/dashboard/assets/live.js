// What every page has: it hears of what happens, shows what waits and which faults are on, and asks for what is to be done.
// Whatever comes from a delivery is written as text, never as markup.

const hearers = { rows: [], status: [] };
let status = null; // the last that was heard

export function on(name, hear) {
  hearers[name].push(hear);
  if (name === "status" && status) hear(status);
}

// Asks for something to be done. An error comes back as {error}.
export async function post(path, fields) {
  try {
    const answer = await fetch(path, { method: "POST", body: new URLSearchParams(fields) });
    const said = await answer.json();
    return answer.ok ? said : { error: said.error ?? said.message ?? `${answer.status}` };
  } catch (error) {
    return { error: `the stack does not answer (${error.message})` };
  }
}

// An element with text in it, and nothing but text.
export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const live = document.getElementById("live");

// Hears from `after` on: the run's name and the change.
export function connect(after) {
  const source = new EventSource(after ? `/live?after=${encodeURIComponent(after)}` : "/live");
  const say = (state, text) => {
    live.dataset.state = state;
    live.textContent = text;
  };
  source.addEventListener("open", () => say("on", "live"));
  source.addEventListener("error", () => say("off", "stopped"));
  source.addEventListener("anew", () => {
    source.close();
    location.reload();
  });
  for (const name of ["rows", "status"]) {
    source.addEventListener(name, (event) => {
      const said = JSON.parse(event.data);
      if (said === null) return;
      if (name === "status") status = said;
      for (const hear of hearers[name]) hear(said);
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

// Whether a key is for the page, and not for what is being written.
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
      // Back to the list as it was, with its filters.
      const from = document.referrer && new URL(document.referrer);
      if (from && from.origin === location.origin && from.pathname === "/") history.back();
      else location.assign("/");
    }
  });
}
