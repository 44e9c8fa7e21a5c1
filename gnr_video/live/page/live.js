// The page of gnr-video live: its socket, the state it is told, controls and keys.

import { $, address, line, put, say, send, text } from "/page.js";
import { draw, startPictures, stopPeer } from "/pictures.js";
import { sendJpegs, showSource, stopCamera, stream, useSource } from "/camera.js";
import { showMicrophone, soundTrack, stopMicrophone } from "/microphone.js";
import { drawStrip, showStyle, stopStrip } from "/strip.js";
import { showFile } from "/files.js";
import { lookIn, showLook, wearLink } from "/share.js";
import { toggleFull } from "/screen.js";

let said = null; // number of the server's message that was shown last

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  line.socket = new WebSocket(`${scheme}://${location.host}${address("/socket")}`);
  line.socket.binaryType = "arraybuffer";
  line.socket.onmessage = (event) => {
    if (event.data instanceof ArrayBuffer) return draw(event.data);
    const message = JSON.parse(event.data);
    if (message.error) text("status", message.error);
    else if (message.state) show(message.state);
    else start(message);
  };
  line.socket.onclose = () => {
    setAlive(false);
    stopPeer();
    stopStrip();
    setTimeout(connect, 1000);
  };
}

function setAlive(alive) {
  $("dead").hidden = alive || !line.hello;
  $("main").inert = !alive;
  $("quit").disabled = !alive;
  if (!alive) text("status", "not connected");
}

function start(hello) {
  line.hello = hello;
  line.asked = 0; // this server has had no command of ours
  said = null;
  document.body.dataset.role = hello.role;
  setAlive(true);
  text("status", "connected");
  $("watching").hidden = isOwner();
  if (!isOwner()) return startPictures(null, () => {});
  $("viewer-link").hidden = !hello.viewer_query;
  $("effects").replaceChildren($("effects").firstElementChild, ...hello.effects.map(effectButton));
  $("paste").replaceChildren(...hello.paste_modes.map((mode) => new Option(mode, mode)));
  const own = $("source").options[0];
  own.textContent = hello.server_camera ? "the server's" : "none";
  $("keys").replaceChildren(...[...hello.help, "f  full screen"].map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
  if (stream()) send("source", "browser");
  if (soundTrack()) send("microphone", true);
  startPictures(stream(), sendJpegs, soundTrack());
  drawStrip();
  wearLink();
}

const isOwner = () => line.hello?.role === "owner";

function effectButton({ name, help }) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", id: name, title: help, onclick: () => send(name) });
  button.textContent = name[0].toUpperCase() + name.slice(1).replace("-", " ");
  button.setAttribute("aria-pressed", false);
  return button;
}

function show(state) {
  // What is older than what was asked for last is not put back.
  if (isOwner() && state.request >= line.asked) showSettings(state);
  showFigures(state);
  if (!isOwner()) return;
  if (said === null) said = state.said; // what was said before this page came is not for it
  if (state.typed) say(`style ${state.typed}_`);
  else if (state.said !== said) {
    said = state.said;
    say(state.message, state.stays);
  }
  showFile(state.file);
}

function showSettings(state) {
  for (const id of ["style", "other"]) { // what was mistyped stays, to be mended
    if (state.refused === id || (id === "style" && state.refused === "look")) $(id).setAttribute("aria-invalid", "true");
    else if (document.activeElement !== $(id)) $(id).removeAttribute("aria-invalid");
  }
  put("style", state.style);
  put("other", state.other);
  put("mix", state.mix);
  showStyle(state.style);
  showLook(state.look);
  $("colours").hidden = !Object.keys(state.colours).length;
  for (const [place, colour] of Object.entries(state.colours)) put(place, colour);
  put("paste", state.paste);
  showSource(state.source);
  showMicrophone(state.microphone);
  $("welcome").hidden = line.hello.server_camera || state.source !== "server";
  document.querySelectorAll("[data-view]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.view === state.view));
  for (const id of ["mirror", "frozen", "covered"]) $(id).setAttribute("aria-pressed", state[id]);
  for (const [name, on] of Object.entries(state.effects)) $(name)?.setAttribute("aria-pressed", on);
  $("record").setAttribute("aria-pressed", state.recording);
  text("record", state.recording ? "Stop recording" : "Record");
  $("recorded").hidden = !state.recorded;
  text("recorded", `Download ${state.recorded}`);
}

function showFigures(state) {
  text("rate", state.rate);
  text("fps", `${state.fps} fps` + (state.drawn < state.fps ? ` (${state.drawn} drawn)` : ""));
  text("p50", `${state.p50} ms`);
  text("p95", `${state.p95} ms`);
  text("dropped", `${state.dropped}`);
  text("covers", state.covers || "none");
  const pages = state.viewers > 1 ? `${state.viewers} pages open` : "";
  text("status", [state.camera, pages].filter(Boolean).join(", ") || state.rate);
  const waiting = !$("welcome").hidden;
  text("notice", state.notice);
  $("notice").hidden = !state.notice || waiting;
  $("faceless").hidden = state.face || waiting || Boolean(state.notice) || state.view === "before";
  text("quit-text", state.viewers > 1
    ? `The live picture ends here, in the ${state.viewers - 1} other open pages, and wherever else it is shown.`
    : "The live picture ends here, and in every window and video call that shows it.");
}

// Controls

$("style-form").onsubmit = (event) => {
  event.preventDefault();
  $("style").removeAttribute("aria-invalid");
  $("style").blur();
  const linked = lookIn($("style").value);
  send(linked ? "look" : "style", linked || $("style").value);
};
for (const place of ["hair", "eyes", "skin"]) {
  $(place).onchange = () => { send("colour", `${place}:${$(place).value}`); $(place).blur(); };
}
$("other").onchange = () => { $("other").blur(); send("other", $("other").value); };
$("mix").oninput = () => send("mix", Number($("mix").value));
$("paste").onchange = () => send("paste", $("paste").value);
$("source").onchange = () => { $("source").blur(); useSource($("source").value); };
document.querySelectorAll("[data-command]").forEach((b) => (b.onclick = () => send(b.dataset.command)));
document.querySelectorAll("[data-view]").forEach((b) => (b.onclick = () => send("view", b.dataset.view)));
$("welcome-camera").onclick = () => useSource("browser");
$("welcome-sample").onclick = () => useSource("sample");
$("welcome-file").onclick = () => $("file").click();
$("quit").onclick = askToQuit;
$("quit-dialog").onclose = () => { if ($("quit-dialog").returnValue === "yes") send("quit"); };
addEventListener("pagehide", stopCamera);
addEventListener("pagehide", stopMicrophone);

function askToQuit() {
  $("quit-dialog").returnValue = "no";
  $("quit-dialog").showModal();
}

// Keys act at once, but for those of a seed, from its point until Enter, which then presses no button.

const TEXTS = ["text", "search", "file"];
let typing = false;

document.addEventListener("keydown", (event) => {
  const { target, key } = event;
  const own = target.tagName === "SELECT" || target.tagName === "TEXTAREA" || (target.tagName === "INPUT" && TEXTS.includes(target.type));
  if (own || event.ctrlKey || event.metaKey || event.altKey || event.repeat || !line.hello || document.querySelector("dialog[open]")) return;
  if (key === "f") return toggleFull();
  if (!isOwner()) return;
  if (key === " " && ["BUTTON", "A", "SUMMARY", "INPUT", "VIDEO"].includes(target.tagName)) return; // it presses that
  if (key === ".") typing = true;
  else if (key === " ") {
    typing = false;
    event.preventDefault(); // it would scroll
  } else if (key === "Enter") {
    if (!typing) return;
    typing = false;
    event.preventDefault();
    return send("key", "\r");
  } else if (key === "Escape") typing = false;
  else if (key === "h") return $("keys-help").toggleAttribute("open");
  else if (key === "q") return askToQuit();
  else if (key !== "Backspace" && !/^[0-9]$/.test(key)) {
    if (!line.hello.keys.includes(key)) return;
    typing = false;
  }
  send("key", { Escape: "\u001b", Backspace: "\b" }[key] || key);
});

connect();
