// A video or picture that is handed over: chosen, or dropped anywhere on the page.

import { $, address, line, send, text } from "/page.js";
import { offerFile } from "/share.js";

const VIDEOS = /\.(mp4|m4v|webm)$/i;
const PICTURES = /\.(png|jpe?g|webp|gif|avif|bmp|apng)$/i;

let request = null; // the upload under way
let played = 0; // number of the file whose translation is shown

export function sendFile() {
  const file = $("file").files[0];
  if (!file) return text("file-note", "Choose a video or a picture first.");
  const mine = (request = new XMLHttpRequest());
  mine.open("POST", address("/file", { name: file.name }));
  mine.upload.onprogress = (event) => show({ stage: "upload", done: event.loaded, frames: event.total, name: file.name });
  mine.onload = () => { if (mine.status !== 200) text("file-note", mine.responseText.trim()); };
  mine.onerror = () => text("file-note", `${file.name} could not be sent: is gnr-video still there? Try it again.`);
  mine.onabort = () => text("file-note", `${file.name} was stopped.`);
  mine.onloadend = () => { if (request === mine) request = null; };
  mine.send(file);
}

// While this page sends a file, it knows more of it than the server.
export function showFile(job) {
  if (job && !request) show(job);
}

function show(job) {
  const busy = job.stage === "upload" || job.stage === "translation";
  $("file-progress").hidden = !busy;
  if (busy) $("file-progress").value = job.frames ? job.done / job.frames : 0;
  $("file-stop").hidden = !busy;
  $("file-done").hidden = job.stage !== "done";
  if (job.stage === "done") play(job);
  const share = job.frames ? `${Math.floor((100 * job.done) / job.frames)} %` : `${job.done} frames`;
  const left = job.seconds_left == null ? "" : `, ${clock(job.seconds_left)} left`;
  if (job.stage === "upload") text("file-note", `${job.name}: sending, ${share}`);
  else if (job.stage === "translation") text("file-note", `${job.name}: ${share}${left}`);
  else text("file-note", job.message);
}

// The translation is shown in the page, where browsers know its kind.
function play({ result, number }) {
  if (played === number) return;
  played = number;
  const url = address("/file", { play: 1, number });
  for (const [id, kind] of [["file-video", VIDEOS], ["file-picture", PICTURES]]) {
    $(id).hidden = !kind.test(result);
    if ($(id).hidden) $(id).removeAttribute("src");
    else $(id).src = url;
  }
  $("file-result").textContent = `Download ${result}`;
  $("file-result").href = address("/file");
  $("file-share").hidden = !navigator.canShare;
  $("file-share").onclick = async () => {
    const answer = await fetch(address("/file")).catch(() => null);
    const blob = answer?.ok && await answer.blob().catch(() => null);
    if (blob) offerFile(blob, result, "Your translation");
    else text("file-note", `${result} is not there any more: translate it again.`);
  };
}

function clock(seconds) {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

$("file-form").onsubmit = (event) => {
  event.preventDefault();
  sendFile();
};
$("file").onchange = () => { if (!$("welcome").hidden) sendFile(); };
$("file-stop").onclick = () => {
  send("stop-file");
  request?.abort();
};
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would open it in place of the page
  if (!event.dataTransfer.files.length || line.hello?.role !== "owner") return;
  $("file").files = event.dataTransfer.files;
  sendFile();
  $("file-note").scrollIntoView({ block: "nearest" });
});
