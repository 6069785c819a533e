// Each provider's URL, with the tunnel's address in front.

const tunnel = document.getElementById("tunnel");

function show() {
  const address = tunnel.value.trim().replace(/\/+$/, "") || "https://YOUR-TUNNEL";
  for (const place of document.querySelectorAll("[data-path]")) place.textContent = address + place.dataset.path;
}

tunnel.addEventListener("input", show);
show();
