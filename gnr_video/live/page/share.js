// What is taken away from the page: a photo, the last seconds, a translated file, a link to a look or to watch.
// It is shown in a dialog first; where the browser can hand it to other programs it offers that, else to save it.

import { $, address, line, say, send, text } from "/page.js";

const DONE = { photo: "Photo", loop: "The last five seconds", gif: "The last five seconds" };
const PATHS = { photo: "/photo.jpg", loop: "/loop.mp4", gif: "/loop.gif" };

let given = null; // what navigator.share gets
let shown = ""; // the URL of the picture in the dialog
let look = ""; // the style on show, where it may stand in a link

async function take(what) {
  const button = $(what);
  button.disabled = true;
  say(what === "photo" ? "" : "The last five seconds are put together …", true);
  try {
    const answer = await fetch(address(PATHS[what], $("wipe").checked ? { wipe: 1 } : {}));
    if (!answer.ok) return say(`Nothing to share: ${(await answer.text()).trim()}.`, true);
    say("");
    offerFile(await answer.blob(), `gnr-video-${stamp()}${PATHS[what].slice(-4)}`, DONE[what]);
  } catch {
    say("gnr-video does not answer: is it still there?", true);
  } finally {
    button.disabled = false;
  }
}

function stamp() {
  const two = (value) => String(value).padStart(2, "0");
  const now = new Date();
  return `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}

export function offerFile(blob, name, title) {
  const file = new File([blob], name, { type: blob.type });
  const isVideo = blob.type.startsWith("video/");
  shown = URL.createObjectURL(blob);
  $(isVideo ? "share-video" : "share-picture").src = shown;
  Object.assign($("share-save"), { href: shown, download: name });
  open({ title, note: `${name}, ${megabytes(blob.size)}`, data: { files: [file] }, isVideo, isPicture: !isVideo });
}

function offerLink(title, url, note) {
  $("share-link").value = url;
  open({ title, note, data: { url } });
  $("share-link").select();
}

function open({ title, note, data, isVideo = false, isPicture = false }) {
  given = data;
  text("share-title", title);
  text("share-note", note);
  $("share-video").hidden = !isVideo;
  $("share-picture").hidden = !isPicture;
  $("share-save").hidden = !data.files;
  $("share-address").hidden = $("share-copy").hidden = Boolean(data.files);
  $("share-send").hidden = !navigator.canShare?.(data);
  if (!$("share-dialog").open) $("share-dialog").showModal();
}

function megabytes(bytes) {
  return `${Math.max(0.1, bytes / 1e6).toFixed(1)} MB`;
}

// Looks in links

export function showLook(style) {
  look = style;
  $("look-link").disabled = !style;
}

const linkTo = (style) => `${location.origin}/#look=${encodeURIComponent(style)}`;

// The style that a link carries, "" where it carries none. What it says is the server's to judge.
export function lookIn(url) {
  const found = /#(?:.*&)?look=([^&]*)/.exec(url);
  try {
    return found ? decodeURIComponent(found[1]) : "";
  } catch {
    return "";
  }
}

// The look that this page was opened with is put on, once.
export function wearLink() {
  const style = lookIn(location.hash);
  if (!style || line.hello.role !== "owner") return;
  history.replaceState(null, "", location.pathname + location.search);
  send("look", style);
}

for (const what of Object.keys(PATHS)) $(what).onclick = () => take(what);
$("look-link").onclick = () => offerLink("Link to this look", linkTo(look),
  "It opens this look where gnr-video runs at this address. Anywhere else, paste it into Style.");
$("viewer-link").onclick = () => offerLink("Link for people who only watch", location.origin + "/" + line.hello.viewer_query,
  "Whoever has it sees the picture and changes nothing.");
$("share-send").onclick = async () => {
  try {
    await navigator.share(given);
  } catch (error) {
    if (error.name !== "AbortError") text("share-note", "The browser could not share it: save it, and send it from there.");
  }
};
$("share-copy").onclick = async () => {
  $("share-link").select();
  try {
    await navigator.clipboard.writeText($("share-link").value);
    text("share-note", "Copied.");
  } catch { // on plain HTTP from another machine
    text("share-note", "It is selected: copy it with the keyboard.");
  }
};
$("share-close").onclick = () => $("share-dialog").close();
$("share-dialog").onclose = () => {
  for (const id of ["share-video", "share-picture", "share-save"]) {
    $(id).removeAttribute(id === "share-save" ? "href" : "src");
  }
  $("share-video").load();
  URL.revokeObjectURL(shown);
  given = null;
};
addEventListener("hashchange", () => line.hello && wearLink());
