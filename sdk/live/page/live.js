// The live page: one WebSocket, a tile a camera, figures and controls. All it shows comes from the server that sent it.

import { Stages, told } from "./chart.js";
import { Tile } from "./tile.js";
import { parsedFrame } from "./wire.js";

const PROTOCOL = "sdk-live.1";
const NO_TOKEN = 4401;
const [FIRST_WAIT_MS, LONGEST_WAIT_MS] = [400, 4000];
const byId = (id) => document.getElementById(id);
const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

const page = {
  look: null,
  tiles: [],
  running: true,
  picked: null, // { tile, id }
  view: { skeleton: true, boxes: false, trails: !still, scores: false, threshold: 0.3, ...kept("view", {}) },
  socket: null,
  wait: FIRST_WAIT_MS,
  version: null,
  failed: false,

  pickedOf(tile) {
    return this.picked && this.picked.tile === tile.number ? this.picked.id : this.picked ? undefined : null;
  },
  pick(tile, id) {
    this.picked = id === null ? null : { tile: tile.number, id };
    drawAll();
    listPersons();
  },
  seen(tile) {
    if (this.picked?.tile === tile.number && tile.frame.people.every((person) => person.id !== this.picked.id)) this.picked = null;
    listPersons();
  },
  key(event, tile) {
    const people = tile.frame?.people ?? [];
    const deeds = {
      " ": () => byId("run").click(),
      r: () => byId("record").click(),
      Escape: () => this.pick(tile, null),
      ArrowRight: () => this.pick(tile, next(people, this.pickedOf(tile), 1)),
      ArrowLeft: () => this.pick(tile, next(people, this.pickedOf(tile), -1)),
    };
    if (event.target !== tile.screen || event.ctrlKey || event.metaKey || event.altKey || !deeds[event.key]) return;
    event.preventDefault();
    deeds[event.key]();
  },
};
const stages = new Stages(byId("stages"));

function next(people, id, step) {
  if (!people.length) return null;
  const index = people.findIndex((person) => person.id === id);
  return people[(index + (index < 0 && step < 0 ? 0 : step) + people.length) % people.length].id;
}

// --- the connection ---------------------------------------------------------------------------------------------

function token() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) {
    sessionStorage.setItem("token", found);
    history.replaceState(null, "", location.pathname); // out of sight, and of the history
  }
  return sessionStorage.getItem("token");
}

function connect() {
  const key = token();
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(`${scheme}//${location.host}/watch`, key ? [PROTOCOL, `token.${key}`] : [PROTOCOL]);
  socket.binaryType = "arraybuffer";
  page.socket = socket;
  socket.addEventListener("message", (event) => hear(event.data));
  socket.addEventListener("close", (event) => closed(event));
}

function closed(event) {
  page.socket = null;
  enable(false);
  if (event.code === NO_TOKEN) {
    sessionStorage.removeItem("token");
    byId("key").hidden = false;
    status("failed", "Token needed");
    return;
  }
  if (!page.failed) status("offline", event.code === 1013 ? "Full" : "Reconnecting");
  setTimeout(connect, page.wait);
  page.wait = Math.min(LONGEST_WAIT_MS, 2 * page.wait);
}

function say(message) {
  if (page.socket?.readyState === WebSocket.OPEN) page.socket.send(JSON.stringify(message));
}

function hear(data) {
  if (typeof data !== "string") {
    const socket = page.socket;
    const frame = parsedFrame(data);
    const { camera } = frame;
    const arrived = () => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify({ do: "arrived", camera }));
    page.tiles[camera]?.receive(frame, arrived);
    return;
  }
  const message = JSON.parse(data);
  ({ hello, state, statistics, notice: ({ words }) => notice(words) })[message.type]?.(message);
}

// --- what the server tells --------------------------------------------------------------------------------------

function hello(message) {
  if (page.version && page.version !== message.version) location.reload(); // the server was renewed, and its page
  page.version = message.version;
  page.wait = FIRST_WAIT_MS;
  page.failed = false;
  byId("key").hidden = byId("alert").hidden = true;
  byId("about").textContent = `${message.engine} on ${message.device}`;
  page.device = message.device;
  const { look, cameras } = message;
  if (page.tiles.map((tile) => tile.name).join("\n") !== cameras.join("\n")) {
    page.tiles = cameras.map((name, number) => new Tile(number, name, page));
    byId("tiles").replaceChildren(...page.tiles.map((tile) => tile.element));
    byId("tiles").dataset.count = cameras.length;
  }
  if (JSON.stringify(page.look) !== JSON.stringify(look)) {
    const known = kept("threshold", {})[look.joints.length];
    page.look = look;
    page.view.threshold = known ?? look.fair;
    const slider = byId("threshold");
    slider.max = 1.25 * look.sure;
    slider.value = page.view.threshold;
    showThreshold();
  }
  enable(true);
}

function state(message) {
  page.running = message.running && !message.ended;
  page.failed = Boolean(message.error || message.lost);
  const word = page.failed ? "failed" : message.ended ? "ended" : message.running ? "live" : "stopped";
  status(word, message.lost ? "Device lost" : { failed: "Failed", ended: "Ended", live: "Live", stopped: "Stopped" }[word]);
  byId("alert").hidden = !page.failed;
  byId("alert").textContent = message.error ?? "";
  byId("run").dataset.on = message.running;
  byId("run").querySelector("span").textContent = message.running ? "Stop" : "Start";
  byId("run").disabled = message.ended;
  showRecording(message.recording);
  const row = byId("smoothing-row");
  row.hidden = message.smoothing === null;
  if (document.activeElement !== byId("smoothing") && message.smoothing !== null) byId("smoothing").value = Math.round(100 * message.smoothing);
  showSmoothing();
}

function statistics(message) {
  const { cameras } = message;
  cameras.forEach((rate, number) => page.tiles[number]?.tell(rate));
  const latencies = cameras.map((rate) => rate.latency_ms?.p50).filter((value) => value !== undefined);
  const total = (of) => cameras.reduce((sum, rate) => sum + of(rate), 0);
  byId("fps").textContent = total((rate) => rate.fps).toFixed(1);
  byId("latency").textContent = latencies.length ? told(Math.max(...latencies)) : "–";
  byId("count").textContent = total((rate) => rate.persons);
  byId("dropped").textContent = total((rate) => rate.counts.dropped ?? 0);
  stages.add(message.stages);
  showFacts(message);
  showRecording(message.recording);
}

function showFacts(message) {
  const gigabytes = (bytes) => (bytes === null ? null : `${(bytes / 2 ** 30).toFixed(2)} GiB`);
  const total = (name) => message.cameras.reduce((sum, rate) => sum + (rate.counts[name] ?? 0), 0);
  const facts = {
    Device: page.device,
    Temperature: message.celsius === null ? "not told" : `${message.celsius.toFixed(1)} °C (${message.celsius_of})`,
    Power: message.watts === null ? "not told" : `${message.watts.toFixed(1)} W (${message.watts_of})`,
    "Device memory": gigabytes(message.memory_bytes),
    Memory: gigabytes(message.resident_bytes),
    "Broken frames": total("broken") || null,
    Reconnections: total("reconnections") || null,
    Viewers: message.viewers,
  };
  const list = byId("facts");
  for (const [name, value] of Object.entries(facts)) {
    let cell = list.querySelector(`[data-fact="${name}"]`);
    if (!cell && value !== null) {
      const term = list.appendChild(document.createElement("dt"));
      term.textContent = name;
      cell = list.appendChild(document.createElement("dd"));
      cell.dataset.fact = name;
    }
    if (cell && cell.textContent !== `${value}`) cell.textContent = value ?? "–";
  }
}

function showRecording(recording) {
  const [button, on] = [byId("record"), recording.on];
  const clock = new Date(1000 * recording.seconds).toISOString().slice(recording.seconds < 3600 ? 14 : 11, 19);
  button.setAttribute("aria-pressed", on);
  button.querySelector("span").textContent = on ? `Recording ${clock}` : "Record";
  if (recording.error) notice(`Not recorded: ${recording.error}`);
  else if (!on && recording.files.length) {
    const left = recording.left_out ? `, ${recording.left_out} left out: the disk was too slow` : "";
    notice(`Recorded ${recording.frames} frames${left}: ${recording.files.join(", ")}`);
  } else if (on) notice("");
}

function notice(words) {
  if (byId("notice").textContent !== words) byId("notice").textContent = words;
}

function status(word, text) {
  byId("status").dataset.state = word;
  byId("status").querySelector("span").textContent = text;
}

// --- persons ----------------------------------------------------------------------------------------------------

function listPersons() {
  const list = byId("persons");
  const rows = page.tiles.flatMap((tile) => (tile.frame?.people ?? []).map((person) => ({ tile, person })));
  const keys = rows.map(({ tile, person }) => `${tile.number}.${person.id}`);
  if (keys.join() !== [...list.children].map((item) => item.dataset.key).join()) {
    const known = new Map([...list.children].map((item) => [item.dataset.key, item]));
    list.replaceChildren(...rows.map((row, index) => known.get(keys[index]) ?? personRow(row, keys[index])));
    byId("nobody").hidden = rows.length > 0;
    speak(rows.length);
  }
  rows.forEach(({ tile, person }, index) => {
    const button = list.children[index].firstChild;
    const seen = page.look.joints.filter((_, joint) => person.joints[3 * joint + 2] >= page.view.threshold).length;
    const words = `${seen} of ${page.look.joints.length} joints`;
    if (button.lastChild.textContent !== words) button.lastChild.textContent = words;
    button.setAttribute("aria-pressed", page.pickedOf(tile) === person.id);
  });
}

function personRow({ tile, person }, key) {
  const item = document.createElement("li");
  item.dataset.key = key;
  const button = item.appendChild(document.createElement("button"));
  button.type = "button";
  const name = button.appendChild(document.createElement("b"));
  name.textContent = page.tiles.length > 1 ? `Person ${person.id}, ${tile.name}` : `Person ${person.id}`;
  button.appendChild(document.createElement("span"));
  button.addEventListener("click", () => page.pick(tile, page.pickedOf(tile) === person.id ? null : person.id));
  return item;
}

let speaking = 0;
function speak(persons) {
  clearTimeout(speaking); // what is read aloud waits until it has been true for a moment
  speaking = setTimeout(() => (byId("spoken").textContent = persons === 1 ? "1 person" : `${persons} persons`), 1500);
}

// --- controls ---------------------------------------------------------------------------------------------------

function enable(on) {
  for (const id of ["run", "record", "smoothing"]) byId(id).disabled = !on;
}

function drawAll() {
  for (const tile of page.tiles) tile.draw();
}

function showThreshold() {
  const words = page.view.threshold.toPrecision(2);
  byId("threshold-value").textContent = words;
  byId("threshold").setAttribute("aria-valuetext", words);
}

function showSmoothing() {
  const percent = Number(byId("smoothing").value);
  byId("smoothing-value").textContent = percent ? `${percent} %` : "off";
  byId("smoothing").setAttribute("aria-valuetext", percent ? `${percent} percent` : "off");
}

function kept(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function keep(name, value) {
  localStorage.setItem(name, JSON.stringify(value));
}

for (const button of document.querySelectorAll("[data-layer]")) {
  const layer = button.dataset.layer;
  button.setAttribute("aria-pressed", page.view[layer]);
  button.addEventListener("click", () => {
    page.view[layer] = !page.view[layer];
    button.setAttribute("aria-pressed", page.view[layer]);
    const { skeleton, boxes, trails, scores } = page.view;
    keep("view", { skeleton, boxes, trails, scores });
    drawAll();
  });
}
byId("threshold").addEventListener("input", (event) => {
  page.view.threshold = Number(event.target.value);
  keep("threshold", { ...kept("threshold", {}), [page.look.joints.length]: page.view.threshold });
  showThreshold();
  drawAll();
  listPersons();
});
byId("smoothing").addEventListener("input", (event) => {
  say({ do: "smooth", value: Number(event.target.value) / 100 });
  showSmoothing();
});
byId("run").addEventListener("click", () => say({ do: page.running ? "stop" : "start" }));
byId("record").addEventListener("click", (event) => say({ do: event.currentTarget.getAttribute("aria-pressed") === "true" ? "finish" : "record" }));
byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", byId("token").value.trim());
  byId("key").hidden = true;
  connect();
});
enable(false);
connect();
