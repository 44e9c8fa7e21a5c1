"use strict";

// Pictures come by WebRTC; where that finds no way within WAIT_MS, as JPEGs over the WebSocket.
const WAIT_MS = 5000;
const CAMERA_FPS = 30;

const $ = (id) => document.getElementById(id);
const params = new URLSearchParams(location.search);
const video = $("video");
const canvas = $("canvas");

let socket = null;
let hello = null;
let peer = null;
let camera = null; // the browser's own MediaStream
let cameraUsed = false; // the server has said so: a state that it sent before it knew does not stop the camera
let cameraTimer = 0;
let overSocket = params.get("transport") === "jpeg";
let sheetFirst = 0;
let drawnFrames = 0;

function send(command, value) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ command, value }));
}

function connect() {
  const token = params.get("token");
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/socket${token ? `?token=${encodeURIComponent(token)}` : ""}`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = (event) => {
    if (event.data instanceof ArrayBuffer) return draw(event.data);
    const message = JSON.parse(event.data);
    if (message.error) $("status").textContent = message.error;
    else if (message.state) show(message.state);
    else start(message);
  };
  socket.onclose = () => {
    $("status").textContent = "gnr-video has stopped; waiting for it …";
    stopPeer();
    setTimeout(connect, 1000);
  };
}

function start(message) {
  hello = message;
  $("status").textContent = "connected";
  $("effects").replaceChildren($("effects").firstElementChild, ...hello.effects.map(effectButton));
  $("paste").replaceChildren(...hello.paste_modes.map((mode) => new Option(mode, mode)));
  $("source").options[0].disabled = !hello.server_camera;
  $("keys").replaceChildren(...hello.help.map((line) => {
    const item = document.createElement("li");
    item.textContent = line;
    return item;
  }));
  cameraUsed = false;
  if (camera) send("source", "browser");
  startPictures();
  if (!$("sheet").children.length) sheet();
}

// Pictures

function startPictures() {
  if (overSocket) {
    video.hidden = true;
    canvas.hidden = false;
    $("transport").textContent = "WebSocket";
    send("jpeg");
    startCameraJpegs();
  } else {
    startPeer();
  }
}

async function startPeer() {
  stopPeer();
  const mine = (peer = new RTCPeerConnection());
  const transceiver = mine.addTransceiver("video", { direction: "sendrecv" });
  if (camera) transceiver.sender.replaceTrack(camera.getVideoTracks()[0]);
  mine.ontrack = (event) => { video.srcObject = new MediaStream([event.track]); };
  mine.onconnectionstatechange = () => {
    if (mine === peer && mine.connectionState === "failed") useSocket();
  };
  setTimeout(() => { if (mine === peer && mine.connectionState !== "connected") useSocket(); }, WAIT_MS);
  try {
    await mine.setLocalDescription(await mine.createOffer());
    await gathered(mine);
    const answer = await fetch("/offer", {
      method: "POST",
      body: JSON.stringify({ sdp: mine.localDescription.sdp, type: mine.localDescription.type, client: hello.client }),
    });
    if (!answer.ok) throw new Error(await answer.text());
    await mine.setRemoteDescription(await answer.json());
    $("transport").textContent = "WebRTC";
  } catch (error) {
    console.warn("WebRTC:", error);
    if (mine === peer) useSocket();
  }
}

function gathered(connection) {
  return new Promise((resolve) => {
    const done = () => connection.iceGatheringState === "complete" && resolve();
    connection.onicegatheringstatechange = done;
    setTimeout(resolve, 1500);
    done();
  });
}

function stopPeer() {
  if (peer) peer.close();
  peer = null;
}

function useSocket() {
  stopPeer();
  overSocket = true;
  startPictures();
}

async function draw(data) {
  try {
    const bitmap = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    drawnFrames += 1;
  } finally {
    send("drawn");
  }
}

// The browser's own camera

async function useCamera(own) {
  if (!own) {
    stopCamera();
    send("source", "server");
    return;
  }
  if (!navigator.mediaDevices) {
    $("message").textContent =
      "Browsers give their camera to https and localhost only: tunnel with ssh -L 8090:127.0.0.1:8090, open http://127.0.0.1:8090/";
    $("source").value = "server";
    return;
  }
  try {
    camera = await navigator.mediaDevices.getUserMedia({ video: { width: 1280, height: 720, frameRate: CAMERA_FPS } });
  } catch (error) {
    $("message").textContent = `The browser gives no camera: ${error.message}`;
    $("source").value = "server";
    return;
  }
  const track = camera.getVideoTracks()[0];
  track.onended = () => useCamera(false);
  send("source", "browser");
  if (peer) peer.getTransceivers()[0].sender.replaceTrack(track);
  if (overSocket) startCameraJpegs();
}

function stopCamera() {
  clearTimeout(cameraTimer);
  if (peer) peer.getTransceivers()[0].sender.replaceTrack(null);
  if (camera) camera.getTracks().forEach((track) => track.stop());
  camera = null;
  cameraUsed = false;
}

async function startCameraJpegs() {
  if (!camera) return;
  const picture = document.createElement("video");
  const buffer = document.createElement("canvas");
  picture.muted = true;
  picture.srcObject = camera;
  await picture.play();
  clearTimeout(cameraTimer);
  const shoot = () => {
    if (!camera || !overSocket) return;
    cameraTimer = setTimeout(shoot, 1000 / CAMERA_FPS);
    if (socket.bufferedAmount > 0 || !picture.videoWidth) return; // the line is busy: this picture is left out
    buffer.width = picture.videoWidth;
    buffer.height = picture.videoHeight;
    buffer.getContext("2d").drawImage(picture, 0, 0);
    buffer.toBlob((blob) => blob && socket.readyState === WebSocket.OPEN && socket.send(blob), "image/jpeg", 0.85);
  };
  shoot();
}

// State and controls

function effectButton({ name, help }) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", id: name, title: help, onclick: () => send(name) });
  button.textContent = name[0].toUpperCase() + name.slice(1).replace("-", " ");
  button.setAttribute("aria-pressed", false);
  return button;
}

function show(state) {
  put("style", state.style);
  put("other", state.other);
  put("mix", state.mix);
  $("colours").hidden = !Object.keys(state.colours).length;
  for (const [place, colour] of Object.entries(state.colours)) put(place, colour);
  put("paste", state.paste);
  if (state.source === "browser") cameraUsed = true;
  else if (cameraUsed) stopCamera(); // another page has taken over
  put("source", camera || state.source === "browser" ? "browser" : "server");
  document.querySelectorAll("[data-view]").forEach((b) => b.setAttribute("aria-pressed", b.dataset.view === state.view));
  $("mirror").setAttribute("aria-pressed", state.mirror);
  for (const [name, on] of Object.entries(state.effects)) $(name)?.setAttribute("aria-pressed", on);
  $("record").setAttribute("aria-pressed", state.recording);
  $("record").textContent = state.recording ? "Stop recording" : "Record";
  $("recorded").hidden = !state.recorded;
  $("recorded").textContent = `Download ${state.recorded}`;
  $("fps").textContent = `${state.fps} fps` + (state.drawn < state.fps ? ` (${state.drawn} drawn)` : "");
  $("p50").textContent = `${state.p50} ms`;
  $("p95").textContent = `${state.p95} ms`;
  $("limit").textContent = state.limit;
  $("dropped").textContent = state.dropped;
  $("status").textContent = state.camera + (state.viewers > 1 ? `, ${state.viewers} pages open` : "");
  text("message", state.typed ? `style ${state.typed}_` : state.message);
  text("notice", state.notice);
  $("notice").hidden = !state.notice;
  if (state.file && state.file.stage !== "upload") showFile(state.file); // while it is sent, its page knows more
}

// A file

function sendFile() {
  const file = $("file").files[0];
  if (!file) return text("file-note", "Choose a video or a picture first.");
  const token = params.get("token");
  const request = new XMLHttpRequest();
  request.open("POST", `/file?name=${encodeURIComponent(file.name)}${token ? `&token=${encodeURIComponent(token)}` : ""}`);
  request.upload.onprogress = (event) => showFile({ stage: "upload", done: event.loaded, frames: event.total, name: file.name });
  request.onload = () => { if (request.status !== 200) text("file-note", request.responseText.trim()); };
  request.onerror = () => text("file-note", `${file.name} could not be sent.`);
  request.send(file);
}

function showFile(job) {
  const busy = job.stage === "upload" || job.stage === "translation";
  $("file-progress").hidden = !busy;
  if (busy) $("file-progress").value = job.frames ? job.done / job.frames : 0;
  $("file-stop").hidden = job.stage !== "translation";
  $("file-result").hidden = job.stage !== "done";
  if (job.stage === "done") $("file-result").textContent = `Download ${job.result}`;
  const share = job.frames ? `${Math.floor((100 * job.done) / job.frames)} %` : `${job.done} frames`;
  const left = job.seconds_left == null ? "" : `, ${clock(job.seconds_left)} left`;
  if (job.stage === "upload") text("file-note", `${job.name}: sending, ${share}`);
  else if (job.stage === "translation") text("file-note", `${job.name}: ${share}${left}`);
  else text("file-note", job.message);
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function text(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value; // or screen readers would repeat it
}

function put(id, value) {
  if (document.activeElement !== $(id)) $(id).value = value;
}

async function sheet() {
  const first = sheetFirst;
  const answer = await fetch(`/sheet.jpg?first=${first}`).catch(() => null);
  if (first !== sheetFirst) return;
  if (!answer || !answer.ok) {
    if (!$("sheet").children.length) setTimeout(sheet, 2000);
    return;
  }
  const strip = await createImageBitmap(await answer.blob());
  const side = strip.height;
  const cells = [];
  for (let i = 0; i < hello.sheet_styles; i++) {
    const button = document.createElement("button");
    const face = document.createElement("canvas");
    const label = document.createElement("span");
    face.width = face.height = side;
    face.setAttribute("aria-hidden", "true");
    face.getContext("2d").drawImage(strip, -i * side, 0);
    label.textContent = first + i;
    button.type = "button";
    button.setAttribute("aria-label", `Style ${first + i}`);
    button.onclick = () => send("style", String(first + i));
    button.append(face, label);
    cells.push(button);
  }
  $("sheet-note").hidden = true;
  $("sheet").replaceChildren(...cells);
}

$("style-form").onsubmit = (event) => {
  event.preventDefault();
  send("style", $("style").value);
  $("style").blur();
};
$("file-form").onsubmit = (event) => {
  event.preventDefault();
  sendFile();
};
const dropZone = document.querySelector(".file");
dropZone.ondragover = (event) => event.preventDefault();
dropZone.ondrop = (event) => {
  event.preventDefault();
  $("file").files = event.dataTransfer.files;
  sendFile();
};
for (const place of ["hair", "eyes", "skin"]) {
  $(place).onchange = () => { send("colour", `${place}:${$(place).value}`); $(place).blur(); };
}
$("other").onchange = () => send("other", $("other").value);
$("mix").oninput = () => send("mix", Number($("mix").value));
$("paste").onchange = () => send("paste", $("paste").value);
$("source").onchange = () => useCamera($("source").value === "browser");
document.querySelectorAll("[data-command]").forEach((b) => (b.onclick = () => send(b.dataset.command)));
document.querySelectorAll("[data-view]").forEach((b) => (b.onclick = () => send("view", b.dataset.view)));
$("sheet-refresh").onclick = sheet;
$("sheet-more").onclick = () => { sheetFirst += hello.sheet_styles; sheet(); };
$("sheet-back").onclick = () => { sheetFirst = Math.max(0, sheetFirst - hello.sheet_styles); sheet(); };

document.addEventListener("keydown", (event) => {
  const own = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
  if (own || event.ctrlKey || event.metaKey || event.altKey || !hello) return;
  if (event.key === "h") document.querySelector("details").toggleAttribute("open");
  else if (/^[0-9]$/.test(event.key) || hello.keys.includes(event.key)) send("key", event.key);
  else if (event.key === "Enter" && event.target.tagName !== "BUTTON" && event.target.tagName !== "SUMMARY") send("key", "\r");
  else if (event.key === "Backspace") send("key", "\b");
  else if (event.key === "Escape") send("key", "\u001b");
});

connect();
