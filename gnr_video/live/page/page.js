// What all parts of the page share: its elements, the socket's commands, messages.

export const $ = (id) => document.getElementById(id);
export const params = new URLSearchParams(location.search);

// Commands are numbered; a state says which of them it shows. What is older than the last wish is not put back.
export const line = { socket: null, asked: 0, hello: null };

export function send(command, value) {
  if (!isOpen()) return;
  line.asked += 1;
  line.socket.send(JSON.stringify({ command, value, request: line.asked }));
}

export function isOpen() {
  return line.socket !== null && line.socket.readyState === WebSocket.OPEN;
}

// An address on this server, with the token where the page's own has it.
export function address(path, query = {}) {
  const token = params.get("token");
  const all = new URLSearchParams(token ? { ...query, token } : query).toString();
  return all ? `${path}?${all}` : path;
}

export function text(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value; // or screen readers would repeat it
}

export function put(id, value) {
  const field = $(id);
  if (document.activeElement !== field && field.getAttribute("aria-invalid") !== "true") field.value = value;
}

// Messages stay until they can have been read, those of failures until they are closed or another one comes.

let unread = 0; // milliseconds that the message still has to be in sight
const STEP_MS = 250;

export function say(message, stays = false) {
  text("message-text", message);
  $("message").hidden = !message;
  unread = stays ? Infinity : 3000 + 70 * message.length;
}

setInterval(() => {
  if (document.visibilityState !== "visible") return;
  unread -= STEP_MS;
  if (unread <= 0) $("message").hidden = true;
}, STEP_MS);

$("message-close").onclick = () => { $("message").hidden = true; };
