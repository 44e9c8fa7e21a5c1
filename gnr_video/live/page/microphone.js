// The browser's own microphone: off until its button is pressed, and asked for only then. It goes through WebRTC.

import { $, say, send } from "/page.js";
import { setSound, way } from "/pictures.js";

const WHY = {
  NotAllowedError: "The browser may not use the microphone: click the sign in its address bar, allow it, and try again.",
  NotFoundError: "The browser finds no microphone: plug one in and try again.",
  NotReadableError: "Another program uses the microphone: close it and try again.",
};

let microphone = null; // the browser's MediaStream
let asking = false;

export const soundTrack = () => microphone && microphone.getAudioTracks()[0];

async function turnOn() {
  if (way.overSocket) return say("There is no sound over the WebSocket: WebRTC found no way to gnr-video.", true);
  if (!navigator.mediaDevices) return say("Browsers give their microphone to https and localhost only.", true);
  asking = true;
  try {
    microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    return say(WHY[error.name] || `The browser gives no microphone: ${error.message}`, true);
  } finally {
    asking = false;
  }
  soundTrack().onended = stopMicrophone;
  setSound(soundTrack());
  send("microphone", true);
}

export function stopMicrophone() {
  if (!microphone) return;
  setSound(null);
  microphone.getTracks().forEach((track) => track.stop());
  microphone = null;
  send("microphone", false);
}

// The server says whose microphone it hears, in a state that is not older than what was asked for last.
export function showMicrophone(on) {
  if (microphone && !on) stopMicrophone(); // another page has taken over
  $("microphone").setAttribute("aria-pressed", on);
}

$("microphone").onclick = () => (microphone ? stopMicrophone() : asking || turnOn());
