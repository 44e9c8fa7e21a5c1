// The picture on the full screen, where the browser can.

import { $ } from "/page.js";

export function toggleFull() {
  if (document.fullscreenElement) document.exitFullscreen().catch(() => {}); // Escape was faster
  else $("picture").requestFullscreen?.().catch(() => {}); // refused: it stays as it is
}

$("full").hidden = !document.fullscreenEnabled;
$("full").onclick = toggleFull;
