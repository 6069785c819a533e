// Loads the page again when there is another alert.
import { on } from "./live.js";

const shown = Number(document.querySelector(".alerts").dataset.count);

on("status", (status) => {
  if (status.alerts !== shown) location.reload();
});
