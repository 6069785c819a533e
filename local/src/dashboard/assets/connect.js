// Shows the URL of each provider with the address of the tunnel.

const tunnel = document.getElementById("tunnel");

function show() {
  const address = tunnel.value.trim().replace(/\/+$/, "") || "https://YOUR-TUNNEL";
  for (const place of document.querySelectorAll("[data-path]")) place.textContent = address + place.dataset.path;
}

tunnel.addEventListener("input", show);
show();
