// Pictures come by WebRTC; where that finds no way within WAIT_MS, as JPEGs over the WebSocket.

import { $, address, isOpen, line, params, send } from "/page.js";

const WAIT_MS = 5000;

export const way = { peer: null, overSocket: params.get("transport") === "jpeg" };

export async function startPictures(camera, onSocket, sound = null) {
  if (way.overSocket) {
    $("video").hidden = true;
    $("canvas").hidden = false;
    $("transport").textContent = "WebSocket";
    send("jpeg");
    onSocket();
    return;
  }
  const fallBack = () => {
    stopPeer();
    way.overSocket = true;
    startPictures(camera, onSocket, sound);
  };
  stopPeer();
  const mine = (way.peer = new RTCPeerConnection({ iceServers: line.hello.ice_servers }));
  const transceiver = mine.addTransceiver("video", { direction: "sendrecv" });
  if (camera) transceiver.sender.replaceTrack(camera.getVideoTracks()[0]);
  mine.addTransceiver("audio", { direction: "sendonly" }).sender.replaceTrack(sound);
  mine.ontrack = (event) => { $("video").srcObject = new MediaStream([event.track]); };
  mine.onconnectionstatechange = () => {
    if (mine === way.peer && mine.connectionState === "failed") fallBack();
  };
  setTimeout(() => { if (mine === way.peer && mine.connectionState !== "connected") fallBack(); }, WAIT_MS);
  try {
    await mine.setLocalDescription(await mine.createOffer());
    await gathered(mine);
    const answer = await fetch(address("/offer"), {
      method: "POST",
      body: JSON.stringify({ sdp: mine.localDescription.sdp, type: mine.localDescription.type, client: line.hello.client }),
    });
    if (!answer.ok) throw new Error(await answer.text());
    await mine.setRemoteDescription(await answer.json());
    $("transport").textContent = "WebRTC";
  } catch (error) {
    if (mine === way.peer) {
      console.warn("WebRTC:", error);
      fallBack();
    }
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

export function stopPeer() {
  if (way.peer) way.peer.close();
  way.peer = null;
}

export function setTrack(track) {
  if (way.peer) way.peer.getTransceivers()[0].sender.replaceTrack(track);
}

export function setSound(track) {
  if (way.peer) way.peer.getTransceivers()[1].sender.replaceTrack(track);
}

export async function draw(data) {
  try {
    const bitmap = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
    const canvas = $("canvas");
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
    }
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  } finally {
    if (isOpen()) line.socket.send('{"command": "drawn"}');
  }
}
