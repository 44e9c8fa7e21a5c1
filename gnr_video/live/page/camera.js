// The browser's own camera: turned on, given to the server, and let go of when another one is used.

import { $, isOpen, line, say, send } from "/page.js";
import { setTrack, way } from "/pictures.js";

const CAMERA_FPS = 30;
const WHY = {
  NotAllowedError: "The browser may not use the camera: click the camera sign in its address bar, allow it, and try again.",
  NotFoundError: "The browser finds no camera: plug one in and try again, or try the sample clip.",
  NotReadableError: "Another program uses the camera: close it and try again.",
};

let camera = null; // the browser's MediaStream
let timer = 0;
let tries = 0;

export const stream = () => camera;

export async function useSource(name) {
  const mine = ++tries;
  if (name !== "browser") {
    stopCamera();
    send("source", name);
    return;
  }
  if (!navigator.mediaDevices) {
    say("Browsers give their camera to https and localhost only: tunnel with ssh -L 8090:127.0.0.1:8090, open http://127.0.0.1:8090/", true);
    return;
  }
  let found;
  try {
    found = await navigator.mediaDevices.getUserMedia({ video: { width: 1280, height: 720, frameRate: CAMERA_FPS } });
  } catch (error) {
    say(WHY[error.name] || `The browser gives no camera: ${error.message}`, true);
    return;
  }
  if (mine !== tries) { // something else has been chosen meanwhile
    found.getTracks().forEach((track) => track.stop());
    return;
  }
  if (camera) stopCamera();
  camera = found;
  const track = camera.getVideoTracks()[0];
  track.onended = () => useSource("server");
  send("source", "browser");
  send("mirror", true); // people know themselves from the mirror
  setTrack(track);
  sendJpegs();
}

export function stopCamera() {
  clearTimeout(timer);
  setTrack(null);
  if (camera) camera.getTracks().forEach((track) => track.stop());
  camera = null;
}

// Where pictures go over the socket, the camera's do so too.
export async function sendJpegs() {
  if (!camera || !way.overSocket) return;
  const picture = document.createElement("video");
  const buffer = document.createElement("canvas");
  picture.muted = true;
  const mine = (picture.srcObject = camera);
  await picture.play().catch(() => {}); // the camera has been turned off meanwhile
  if (mine !== camera) return;
  clearTimeout(timer);
  const shoot = () => {
    if (!camera || !way.overSocket) return;
    timer = setTimeout(shoot, 1000 / CAMERA_FPS);
    if (!isOpen() || line.socket.bufferedAmount > 0 || !picture.videoWidth) return; // busy: this one is left out
    buffer.width = picture.videoWidth;
    buffer.height = picture.videoHeight;
    buffer.getContext("2d").drawImage(picture, 0, 0);
    buffer.toBlob((blob) => blob && isOpen() && line.socket.send(blob), "image/jpeg", 0.85);
  };
  shoot();
}

// The server says whose pictures it uses, in a state that is not older than what was asked for last.
export function showSource(source) {
  if (camera && source !== "browser") stopCamera(); // another page has taken over
  const field = $("source");
  if (document.activeElement !== field) field.value = source === "other" ? "server" : source;
}
