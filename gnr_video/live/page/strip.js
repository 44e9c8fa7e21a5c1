// The strip: the last face in many looks, drawn one after the other; the current one marked, favourites first.

import { $, address, line, send } from "/page.js";

const COUNT = 12;
const SEEDS = 10000;
const AGAIN_MS = 2000;
const STORE = "gnr-video favourites";

let first = 0;
let current = "";
let drawing = null; // AbortController of the row that is being drawn

function favourites() {
  try {
    return JSON.parse(localStorage.getItem(STORE) || "[]").filter((style) => typeof style === "string");
  } catch {
    return [];
  }
}

function keep(styles) {
  try {
    localStorage.setItem(STORE, JSON.stringify(styles.slice(0, COUNT)));
  } catch {
    // a browser that stores nothing forgets them
  }
}

function look(style, isFavourite) {
  const button = document.createElement("button");
  const face = document.createElement("canvas");
  const label = document.createElement("span");
  face.width = face.height = 8;
  face.setAttribute("aria-hidden", "true");
  label.textContent = (isFavourite ? "★ " : "") + style;
  Object.assign(button, { type: "button", className: "look", title: style, onclick: () => send("style", style) });
  button.dataset.style = style;
  button.setAttribute("aria-label", `Style ${style}${isFavourite ? ", a favourite" : ""}`);
  button.append(face, label);
  return button;
}

export async function drawStrip() {
  drawing?.abort();
  const mine = (drawing = new AbortController());
  const kept = favourites();
  const seeds = Array.from({ length: COUNT }, (_, i) => String(first + i)).filter((seed) => !kept.includes(seed));
  const known = new Map([...$("strip").children].map((button) => [button.dataset.style, button]));
  const buttons = [...kept.map((style) => look(style, true)), ...seeds.map((seed) => look(seed, false))];
  for (const button of buttons) { // the last drawing stays until the new one is there
    const before = known.get(button.dataset.style);
    if (before) button.replaceChild(before.firstChild, button.firstChild);
  }
  $("strip").replaceChildren(...buttons);
  mark();
  for (const button of buttons) {
    if (!await drawLook(button, mine.signal)) return;
  }
}

// Whether the next one may follow.
async function drawLook(button, signal) {
  const face = button.firstChild; // a row begun meanwhile may take it over
  for (;;) {
    let answer, picture;
    try {
      answer = await fetch(address("/face.jpg", { style: button.dataset.style, client: line.hello.client }), { signal });
      if (answer.status === 200) picture = await createImageBitmap(await answer.blob());
    } catch {
      return false; // another row has been begun, or the server has gone
    }
    if (signal.aborted || answer.status === 409) return false;
    if (picture) {
      face.width = picture.width;
      face.height = picture.height;
      face.getContext("2d").drawImage(picture, 0, 0);
      picture.close();
      $("strip-note").hidden = true;
      return true;
    }
    if (answer.status !== 204) return true; // no look of these weights
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS)); // there has been no face yet
    if (signal.aborted) return false;
  }
}

function mark() {
  for (const button of $("strip").children) button.setAttribute("aria-pressed", button.dataset.style === current);
  const isKept = favourites().includes(current);
  $("favourite").setAttribute("aria-pressed", isKept);
  $("favourite").textContent = isKept ? "★ Kept" : "☆ Keep";
}

export function showStyle(style) {
  if (style === current) return;
  current = style;
  mark();
}

export function stopStrip() {
  drawing?.abort();
}

$("surprise").onclick = () => send("style", String(Math.floor(Math.random() * SEEDS)));
$("favourite").onclick = () => {
  const kept = favourites();
  keep(kept.includes(current) ? kept.filter((style) => style !== current) : [current, ...kept]);
  drawStrip();
};
$("strip-refresh").onclick = drawStrip;
$("strip-more").onclick = () => { first += COUNT; drawStrip(); };
$("strip-back").onclick = () => { first = Math.max(0, first - COUNT); drawStrip(); };
