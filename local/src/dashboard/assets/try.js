// The buttons: samples, send again, redrive and faults.

import { element, on, post } from "/assets/live.js";
import { drawLevel, group } from "/assets/chart.js";

const byId = (id) => document.getElementById(id);

// Describes an answer to a delivery.
function describe(said) {
  if (said.error) return { outcome: "crashed", text: said.error };
  const outcome = said.status === 200 ? said.answer?.status : (said.answer?.title ?? "no answer");
  return { outcome, text: `${said.status} ${outcome}${said.answer?.reason ? ` (${said.answer.reason})` : ""}` };
}

for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", async () => {
    const { do: path, ...fields } = button.dataset;
    const output = button.parentElement.querySelector("output");
    output.textContent = "…";
    button.disabled = true;
    const said = await post(path, fields);
    button.disabled = false;
    if (said.error) output.textContent = said.error;
    else if (path === "/do/redrive") {
      const outage = said.outage ? `; SNS is down: ${said.outage}` : "";
      output.textContent = `${said.published ?? 0} published${outage}`;
    } else output.textContent = describe(said).text;
  });
}

for (const samples of document.querySelectorAll("[data-provider]")) {
  samples.addEventListener("click", async (event) => {
    const sample = event.target.dataset.event;
    if (!sample) return;
    const provider = samples.dataset.provider;
    const shop = samples.querySelector("select").value;
    const said = await post("/do/send", { provider, event: sample, shop, fresh: byId("fresh").checked });
    const { outcome, text } = describe(said);
    const line = element("li");
    line.append(element("span", `dot ${group(outcome)}`, text), ` ${provider} ${sample}`);
    const sent = byId("sent");
    sent.querySelector(".hint")?.remove();
    sent.prepend(line);
    while (sent.children.length > 8) sent.lastChild.remove();
  });
}

for (const box of document.querySelectorAll("[data-fault]")) {
  box.addEventListener("change", () => post("/do/fault", { name: box.dataset.fault, on: box.checked }));
}

const outbox = byId("outbox");
if (outbox) {
  const points = [];
  const picture = () => drawLevel(outbox, points, Date.now());
  on("status", (status) => {
    byId("waiting").textContent = status.pending;
    points.push([Date.now(), status.pending]);
    if (points.length > 1000) points.shift();
    const names = status.faults.map((fault) => fault.name);
    for (const box of document.querySelectorAll("[data-fault]")) box.checked = names.includes(box.dataset.fault);
    picture();
  });
  setInterval(picture, 1000);
}
