// A video or picture that is handed over: chosen, or dropped anywhere on the page.

import { $, address, send, text } from "/page.js";

let request = null; // the upload under way

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
  if (!event.dataTransfer.files.length) return;
  $("file").files = event.dataTransfer.files;
  sendFile();
  $("file-note").scrollIntoView({ block: "nearest" });
});
