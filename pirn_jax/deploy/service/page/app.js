import { INFERNO, cover } from "./colours.js";
import { Surface } from "./surface.js";

const $ = (id) => document.getElementById(id);
const POINTS = /\.(tiff?|npy|npz|ply|pcd)$/i;

// Asking the service

async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...options.headers, ...(key ? { "X-API-Key": key } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401) {
    await askKey();
    return ask(path, options);
  }
  return answer;
}

let asking = null;
function askKey() {
  asking ??= new Promise((done) => {
    $("key").hidden = false;
    $("ask-key").showModal();
    $("ask-key").addEventListener("close", () => {
      sessionStorage.setItem("key", $("key-value").value.trim());
      asking = null;
      done();
    }, { once: true });
  });
  return asking;
}

async function json(path, options) {
  const answer = await ask(path, options);
  const said = await answer.json();
  if (!answer.ok) throw new Error([said.error, said.remedy].filter(Boolean).join("\n"));
  return said;
}

async function picture(id, name) {
  const answer = await ask(`v1/results/${id}/${name}`);
  return answer.ok ? createImageBitmap(await answer.blob()) : null;
}

// What is known

const state = { models: {}, list: [], chosen: null, layer: "photograph", pictures: null, tried: null, last: 0 };
const surface = new Surface($("surface"));

const kind = (result) =>
  result.state !== "judged" ? result.state : ({ 0: "ok", 1: "not_ok" }[result.record.label] ?? "unjudged");
const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const scale = () => state.chosen && state.models[state.chosen.model]?.scale;

// A score on the heatmap's scale, as pirn_jax.scoring.normalise has it: 0.5 is the threshold.
function normalised(score) {
  const { threshold, spread } = scale(), d = (score - threshold) / spread;
  return (1 + d / (1 + Math.abs(d))) / 2;
}

// The history

function query(more = {}) {
  const asked = { text: $("text").value.trim(), verdict: $("verdict").value, mark: $("marked").value, ...more };
  return new URLSearchParams(Object.entries(asked).filter(([, value]) => value !== "" && value !== undefined));
}

async function load(older = false) {
  const before = older ? state.list.at(-1)?.number : undefined;
  const found = await json(`v1/results?${query({ before, most: 50 })}`);
  state.list = older ? [...state.list, ...found] : found;
  state.last = Math.max(state.last, ...found.map((result) => result.number));
  $("more").hidden = found.length < 50;
  drawList();
  if (!older && (!state.chosen || ($("live").checked && found.length))) choose(found[0]);
}

async function follow() {
  try {
    const pending = state.list.some((result) => result.state === "accepted");
    const found = await json(`v1/results?${query({ after: state.last, most: 50 })}`);
    if (found.length || pending) {
      const first = found[0];
      state.last = Math.max(state.last, ...found.map((result) => result.number));
      const fresh = pending ? await json(`v1/results?${query({ most: 50 })}`) : [...found, ...state.list];
      const known = new Map([...state.list, ...fresh].map((result) => [result.id, result]));
      state.list = [...known.values()].sort((a, b) => b.number - a.number).slice(0, 500);
      drawList();
      if ($("live").checked && first) choose(first);
      else if (state.chosen?.state === "accepted") choose(known.get(state.chosen.id) ?? state.chosen);
    }
  } catch { /* the service is away; the next look may find it */ }
  setTimeout(follow, document.hidden ? 5000 : 1000);
}

function element(tag, words, className = "") {
  const made = document.createElement(tag);
  made.textContent = words;
  made.className = className;
  return made;
}

function drawList() {
  $("list").replaceChildren(...state.list.map((result) => {
    const row = element("li", "", kind(result));
    row.role = "option";
    row.id = `r${result.id}`;
    row.ariaSelected = String(result.id === state.chosen?.id);
    row.title = result.key;
    const when = element("span", "", "when");
    const time = new Date(result.accepted);
    const today = time.toDateString() === new Date().toDateString();
    when.append(element("span", today ? time.toLocaleTimeString() : time.toLocaleString()));
    if (result.mark) when.append(element("span", result.mark === "missed" ? "missed" : "false alarm", "mark"));
    const words = { failed: "failed", accepted: "waits" }[result.state] ?? number(result.record.score);
    row.append(element("span", "", "dot"), element("span", result.key, "name"), element("span", words, "score"), when);
    row.addEventListener("click", () => { $("live").checked = false; choose(result); });
    return row;
  }));
  $("list").setAttribute("aria-activedescendant", state.chosen ? `r${state.chosen.id}` : "");
}

function step(by) {
  const at = state.list.findIndex((result) => result.id === state.chosen?.id);
  const next = state.list[Math.max(0, Math.min(state.list.length - 1, at + by))];
  if (!next) return;
  $("live").checked = false;
  choose(next);
  $(`r${next.id}`)?.scrollIntoView({ block: "nearest" });
}

// One part

async function choose(result) {
  if (!result) return;
  state.chosen = result;
  state.tried = null;
  for (const row of $("list").children) row.ariaSelected = String(row.id === `r${result.id}`);
  $("list").setAttribute("aria-activedescendant", `r${result.id}`);
  drawFacts();
  state.pictures = null;
  const judged = result.state === "judged" && result.kept;
  const [photograph, normals, heat, mask, points] = judged
    ? await Promise.all([picture(result.id, "photograph.jpg"), picture(result.id, "normals.png"),
      picture(result.id, "heat.png"), picture(result.id, "mask.png"), ask(`v1/results/${result.id}/points.bin`)])
    : [];
  if (state.chosen !== result) return; // another was chosen meanwhile
  const cloud = points?.ok ? await points.arrayBuffer() : null;
  state.pictures = heat && mask
    && { photograph, normals, heat, heats: pixels(heat), marked: pixels(mask), points: cloud };
  if (cloud && surface.works) surface.show(cloud, photograph, heat);
  for (const button of $("layers").children) button.disabled = !available(button.dataset.layer);
  if (!available(state.layer)) setLayer(["photograph", "normals", "surface"].find(available) ?? "photograph");
  drawPicture();
}

function available(layer) {
  if (!state.pictures) return false;
  return layer === "surface" ? Boolean(state.pictures.points && surface.works) : Boolean(state.pictures[layer]);
}

function pixels(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), at = canvas.getContext("2d");
  at.drawImage(bitmap, 0, 0);
  const all = at.getImageData(0, 0, bitmap.width, bitmap.height).data;
  return Uint8Array.from({ length: all.length / 4 }, (_, i) => all[4 * i]);
}

function setLayer(layer) {
  state.layer = layer;
  for (const button of $("layers").children) {
    button.ariaChecked = String(button.dataset.layer === layer);
    button.tabIndex = button.dataset.layer === layer ? 0 : -1;
  }
  drawPicture();
}

function drawPicture() {
  const { pictures } = state, solid = state.layer === "surface" && available("surface");
  const gone = state.chosen && state.chosen.state === "judged" && !state.chosen.kept;
  $("picture").hidden = !pictures || solid;
  $("surface").hidden = !solid;
  $("nothing").hidden = Boolean(pictures);
  $("scale").style.visibility = pictures ? "" : "hidden";
  $("middle").hidden = !scale();
  if (gone) $("nothing").textContent = "Its pictures made room for newer ones; the verdict is kept.";
  else if (state.chosen?.state === "failed") $("nothing").textContent = "It could not be judged.";
  if (!pictures) return;
  const opacity = $("opacity").value / 100;
  surface.opacity = opacity;
  if (solid) return surface.draw();
  const { heat, heats } = pictures, { width, height } = heat;
  const canvas = $("picture"), at = canvas.getContext("2d");
  const zoom = Math.max(1, Math.min(4, Math.round(1100 / Math.max(width, height))));
  canvas.width = width * zoom;
  canvas.height = height * zoom;
  at.imageSmoothingQuality = "high";
  at.drawImage(pictures[state.layer] ?? heat, 0, 0, canvas.width, canvas.height);
  const laid = new ImageData(width, height);
  for (let i = 0; i < heats.length; i++) {
    laid.data.set(INFERNO.subarray(3 * heats[i], 3 * heats[i] + 3), 4 * i);
    laid.data[4 * i + 3] = 255 * opacity * cover(heats[i] / 255);
  }
  const colours = new OffscreenCanvas(width, height);
  colours.getContext("2d").putImageData(laid, 0, 0);
  at.drawImage(colours, 0, 0, canvas.width, canvas.height);
  if ($("outlines").checked) drawOutlines(at, pictures, width, height, zoom);
}

// Around what the verdict marks, or the threshold that is tried would.
function drawOutlines(at, { heats, marked }, width, height, zoom) {
  const { record } = state.chosen;
  const tried = state.tried !== null && scale();
  if (tried ? record.score <= state.tried : record.label !== 1) return;
  const [values, level] = tried ? [heats, 255.999 * normalised(state.tried)] : [marked, 127.5];
  const over = (r, c) => r >= 0 && c >= 0 && r < height && c < width && values[r * width + c] > level;
  const path = new Path2D();
  for (let r = 0; r < height; r++) {
    for (let c = 0; c < width; c++) {
      if (!over(r, c)) continue;
      const [x, y] = [c * zoom, r * zoom];
      if (!over(r - 1, c)) { path.moveTo(x, y); path.lineTo(x + zoom, y); }
      if (!over(r + 1, c)) { path.moveTo(x, y + zoom); path.lineTo(x + zoom, y + zoom); }
      if (!over(r, c - 1)) { path.moveTo(x, y); path.lineTo(x, y + zoom); }
      if (!over(r, c + 1)) { path.moveTo(x + zoom, y); path.lineTo(x + zoom, y + zoom); }
    }
  }
  for (const [colour, thick] of [["#000000b0", 5], ["#ffffff", 2]]) {
    at.strokeStyle = colour;
    at.lineWidth = thick;
    at.stroke(path);
  }
  if (tried) return;
  const step = Math.ceil(Math.max(...record.size) / 768), factor = zoom / step;
  at.font = `600 ${Math.round(7 * zoom + 8)}px system-ui, sans-serif`;
  at.textAlign = "center";
  record.regions.forEach((region, place) => {
    if (!region.counts) return; // the mask leaves it out
    const words = String(place + 1);
    const [x, y] = [(region.peak_pixel[1] + 0.5) * factor, region.box[0] * factor - 7];
    at.strokeStyle = "#000";
    at.lineWidth = 4;
    at.strokeText(words, x, y);
    at.fillStyle = "#fff";
    at.fillText(words, x, y);
  });
}

const WORDS = { ok: "OK", not_ok: "Not OK", failed: "Not judged", accepted: "Waits", unjudged: "No threshold" };
const RULES = { "part threshold": "the threshold", "least size": "no region is large enough",
  "no rule holds": "no rule holds", "no threshold": "the model has no threshold" };

function drawFacts() {
  const result = state.chosen, { record } = result, model = state.models[result.model];
  $("verdict-card").hidden = false;
  $("label").textContent = WORDS[kind(result)];
  $("label").className = kind(result);
  const failed = result.state === "failed";
  $("why").textContent = failed ? [record.error, record.remedy].filter(Boolean).join(". ")
    : record ? `Decided by ${record.rule in RULES ? RULES[record.rule] : `“${record.rule}”`}` : "";
  const facts = { part: result.key, model: `${result.model}${record?.model ? `, ${record.model.slice(0, 8)}` : ""}`,
    judged: record && new Date(record.time).toLocaleString(), came: result.source === "folder" ? "from the watched folder" : "by HTTP" };
  if (record && !failed) facts.score = `${number(record.score)}, threshold ${number(record.threshold)}`;
  if (model?.trained_on === "generated") facts.note = "the model learned generated parts";
  if (model?.random_weights) facts.note = "the encoder is random: results mean little";
  $("pairs").replaceChildren(...Object.entries(facts).filter(([, words]) => words)
    .flatMap(([name, words]) => [element("dt", name), element("dd", words)]));
  for (const button of $("marks").children) {
    button.ariaPressed = String(result.mark === button.dataset.mark);
    button.hidden = button.dataset.mark === "false_alarm" ? kind(result) !== "not_ok" : kind(result) !== "ok";
  }
  $("marks").hidden = !["ok", "not_ok"].includes(kind(result));
  drawRegions(record?.regions ?? []);
  $("threshold-card").hidden = failed || !record || !scale();
  if (!$("threshold-card").hidden) drawThreshold();
}

function drawRegions(regions) {
  $("regions-card").hidden = !regions.length;
  $("regions").tBodies[0].replaceChildren(...regions.slice(0, 50).map((region, place) => {
    const row = element("tr", "", region.counts ? "" : "small");
    const size = region.length_mm === null ? `${number(region.length_px, 0)} × ${number(region.width_px, 0)} px`
      : `${number(region.length_mm, 1)} × ${number(region.width_mm, 1)}`;
    const shares = Object.entries(region.shares).sort((a, b) => b[1] - a[1]);
    const spoke = element("td", shares.length ? `${shares[0][0]} ${Math.round(100 * shares[0][1])} %` : "–");
    const about = [...region.zones, region.counts ? "" : "too small", region.severity === 1 ? "" : `severity ${number(region.severity, 1)}`];
    if (about.some(Boolean)) spoke.append(element("small", about.filter(Boolean).join(", ")));
    row.append(element("td", String(place + 1)), element("td", number(region.area_mm2, 1)), element("td", size),
      element("td", number(region.deviation_mm)), spoke);
    return row;
  }));
}

// The threshold that is tried

function drawThreshold() {
  const { scores, threshold, promise } = scale(), score = state.chosen.record.score;
  const all = [...scores, threshold, score], low = Math.min(...all), high = Math.max(...all);
  const from = low - 0.06 * (high - low || 1), to = high + 0.06 * (high - low || 1);
  const tried = state.tried ?? threshold, x = (value) => 320 * (value - from) / (to - from);
  const made = (tag, facts, words = "") => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(facts)) shape.setAttribute(name, value);
    shape.textContent = words;
    return shape;
  };
  const heaps = new Map();
  const dots = scores.map((value) => {
    const at = Math.round(x(value) / 5), high = heaps.get(at) ?? 0;
    heaps.set(at, high + 1);
    return made("circle", { cx: x(value), cy: 44 - 6 * Math.min(high, 4), r: 3, class: value > tried ? "alarm" : "good" });
  });
  const side = (value) => (x(value) > 160 ? "end" : "start"), off = (value) => x(value) + (x(value) > 160 ? -5 : 5);
  $("strip").setAttribute("viewBox", "0 0 320 62");
  $("strip").replaceChildren(
    made("line", { x1: 0, x2: 320, y1: 50, y2: 50, class: "axis" }), ...dots,
    made("line", { x1: x(threshold), x2: x(threshold), y1: 12, y2: 50, class: "set" }),
    made("line", { x1: x(score), x2: x(score), y1: 4, y2: 50, class: "now" }),
    made("text", { x: off(score), y: 11, "text-anchor": side(score) }, `this part ${number(score)}`),
    made("text", { x: off(threshold), y: 61, "text-anchor": side(threshold) }, `set ${number(threshold)}`));
  const range = $("threshold");
  if (document.activeElement !== range || state.tried === null) range.value = 1000 * (tried - from) / (to - from);
  state.range = [from, to];
  const over = scores.filter((value) => value > tried).length;
  const share = scores.length ? ` (${Math.round(100 * over / scores.length)} %)` : "";
  $("what-if").textContent = scores.length
    ? `At ${number(tried)}: ${over} of ${scores.length} good parts of the calibration${share} would be false alarms; this part would be ${score > tried ? "not OK" : "OK"}.`
    : `At ${number(tried)} this part would be ${score > tried ? "not OK" : "OK"}. The model keeps no scores of its calibration.`;
  $("promise").replaceChildren(...promise.split("\n").map((words) => element("p", words)));
}

$("threshold").addEventListener("input", (event) => {
  const [from, to] = state.range;
  state.tried = from + (to - from) * event.target.value / 1000;
  drawThreshold();
  drawPicture();
});

async function mark(which) {
  const result = state.chosen;
  if (!result || kind(result) !== (which === "missed" ? "ok" : "not_ok")) return;
  const body = JSON.stringify({ mark: result.mark === which ? null : which });
  const known = await json(`v1/results/${result.id}/mark`, { method: "PUT", body, headers: { "Content-Type": "application/json" } });
  result.mark = known.mark;
  drawFacts();
  drawList();
}

// Sending

// One role of a file, and the name of the part it belongs to.
function roleOf(name) {
  const stem = name.replace(/\.[^.]*$/, ""), said = stem.match(/^(.*)_(rgb|xyz|depth|normals)$/i);
  if (said) return [said[1], said[2].toLowerCase()];
  return [stem, POINTS.test(name) ? "xyz" : "rgb"];
}

async function send(files) {
  const parts = new Map();
  for (const file of files) {
    const [stem, role] = roleOf(file.name);
    if (!parts.has(stem)) parts.set(stem, {});
    parts.get(stem)[role] = file;
  }
  const wrong = [];
  let done = 0;
  $("sending").className = "soft";
  for (const [stem, roles] of parts) {
    $("sending").textContent = `judging ${stem} (${++done} of ${parts.size})`;
    const form = new FormData();
    form.append("key", stem);
    const names = Object.keys(state.models);
    if (names.length > 1) form.append("model", $("which").value);
    for (const [role, file] of Object.entries(roles)) form.append(role, file);
    try {
      await json("v1/judge", { method: "POST", body: form });
    } catch (error) {
      wrong.push(`${stem}: ${error.message}`);
    }
  }
  $("sending").textContent = wrong.join("\n");
  $("sending").classList.toggle("wrong", wrong.length > 0);
  $("live").checked = true;
  await load();
}

$("files").addEventListener("change", async (event) => {
  await send([...event.target.files]);
  event.target.value = "";
});
for (const name of ["dragover", "dragenter"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) $("drop").classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  send([...event.dataTransfer.files]);
});

// Switches and keys

for (const button of $("layers").children) button.addEventListener("click", () => setLayer(button.dataset.layer));
$("layers").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const able = [...$("layers").children].filter((button) => !button.disabled);
  const next = able[(able.findIndex((button) => button.ariaChecked === "true") + by + able.length) % able.length];
  next.focus();
  setLayer(next.dataset.layer);
});
$("opacity").addEventListener("input", drawPicture);
$("outlines").addEventListener("change", drawPicture);
for (const button of $("marks").children) button.addEventListener("click", () => mark(button.dataset.mark));
for (const name of ["verdict", "marked"]) $(name).addEventListener("change", () => load());
let typing;
$("text").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(load, 200); });
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("more").addEventListener("click", () => load(true));
$("help").addEventListener("click", () => $("keys").showModal());
$("key").addEventListener("click", async () => { await askKey(); load(); });
$("live").addEventListener("change", () => { if ($("live").checked) choose(state.list[0]); });

let shown = $("opacity").value;
const KEYS = {
  ArrowUp: () => step(-1), ArrowDown: () => step(1),
  1: () => available("photograph") && setLayer("photograph"),
  2: () => available("normals") && setLayer("normals"),
  3: () => available("surface") && setLayer("surface"),
  h: () => {
    if ($("opacity").value > 0) shown = $("opacity").value;
    $("opacity").value = $("opacity").value > 0 ? 0 : shown;
    drawPicture();
  },
  o: () => { $("outlines").checked = !$("outlines").checked; drawPicture(); },
  f: () => mark("false_alarm"), m: () => mark("missed"),
  l: () => $("live").click(), "/": () => $("text").focus(), "?": () => $("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  const inField = event.target.matches("input:not([type=checkbox]), select, dialog *");
  if (inField || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});

// The beginning

const ramp = $("ramp").getContext("2d"), row = new ImageData(256, 1);
for (let i = 0; i < 256; i++) row.data.set([...INFERNO.subarray(3 * i, 3 * i + 3), 255], 4 * i);
ramp.putImageData(row, 0, 0);
setLayer("photograph");

const models = await json("v1/models");
state.models = Object.fromEntries(models.map((model) => [model.name, model]));
const about = ({ method, encoder, modalities }) => `${method} on ${encoder}, ${modalities.join(" + ")}`;
if (models.length > 1) {
  const which = element("select", "");
  which.id = "which";
  which.ariaLabel = "Model for parts that are dropped";
  which.append(...models.map((model) => element("option", model.name)));
  $("model").append("judged by ", which, ` ${about(models[0])}`);
} else {
  $("model").textContent = `judged by ${models[0].name}: ${about(models[0])}`;
}
await load();
follow();
