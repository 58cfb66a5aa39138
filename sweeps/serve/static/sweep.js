// One sweep alive: the state comes as server-sent events; only what changed is sent and drawn again.
"use strict";
const { name, resume } = document.getElementById("sweep").dataset;
const base = `/api/v1/sweeps/${encodeURIComponent(name)}`;
const trials = new Map();
const ROWS = 200, CURVES = 100, OVER = ["done", "pruned", "failed", "stopped"];
let rows = ROWS, driven = false, share = {}, undoing = null, sort = { key: "best", down: true }, search = "", drawing = false, version = 0;
const percent = (share, digits = 1) => (share == null ? "none" : `${(100 * share).toFixed(digits)}\u00a0%`); // on one line
const put = (id, text) => { document.getElementById(id).textContent = text; };
const colour = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();

function duration(seconds) {
  if (seconds == null) return "unknown";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function showSummary(now) {
  const { best, trials: counts, begun } = now.digest, over = ["finished", "paused"].includes(now.state);
  put("line", `${now.pause || now.state}; space ${now.digest.space}, data ${now.digest.dataset}` + (now.digest.stopped ? `; ${now.digest.stopped}` : "") + (["stopped", "crashed"].includes(now.state) ? `; continue it with: ${resume}` : ""));
  put("best", percent(best?.value));
  put("best-about", best ? `trial ${best.trial}, epoch ${best.epoch}` + (best.low == null ? "" : `; 95\u00a0% interval ${percent(best.low)}\u00a0to\u00a0${percent(best.high)}`) : "no epoch is finished yet");
  put("count", `${begun ?? trials.size} of ${now.asked}`);
  put("count-about", (begun < trials.size ? `${trials.size} nets: ` : "") + Object.entries(counts).map(([state, n]) => `${n} ${state}`).join(", "));
  put("slots", String(now.slots));
  put("driver", now.driver ? `on ${now.driver.host}, process ${now.driver.pid}` : "no driver");
  put("left", over ? now.state : duration(now.seconds_left));
  put("left-about", over || now.seconds_left == null ? "" : "at the speed so far");
  driven = now.driver != null;
  for (const button of document.querySelectorAll(".acts > button")) button.disabled = !driven && button.dataset.verb !== "retry";
  showFront(now.digest.pareto);
  document.querySelector("[data-verb=retry]").hidden = !counts.failed;
  share = now.set;
  showShare();
  window.dispatchEvent(new CustomEvent("summary", { detail: now }));
}

function showFront(front) {
  const section = document.getElementById("front"), [head] = section.querySelector("thead").rows, cell = (kind, text) => { const made = document.createElement(kind); made.textContent = text; return made; };
  section.hidden = !front.length;
  if (!front.length) return;
  const { trial, ...objectives } = front[0], words = (key, value) => (key === "val_accuracy" ? percent(value) : value.toLocaleString("en", Number.isInteger(value) ? {} : { maximumSignificantDigits: 3 }));
  head.replaceChildren(...["trial", ...Object.keys(objectives)].map((key) => cell("th", key)));
  section.querySelector("tbody").replaceChildren(...front.map(({ trial: number, ...values }) => { const row = document.createElement("tr"); row.append(cell("td", number), ...Object.entries(values).map(([key, value]) => cell("td", words(key, value)))); return row; }));
}

const setForm = document.querySelector("form[data-verb=set]");
function shareNow() { const value = share[setForm.elements.key.value.replace("-", "_")]; return value == null ? "" : String(value); }
function showShare() { if (document.activeElement !== setForm.elements.value) setForm.elements.value.value = shareNow(); }

const merit = (one) => one.best ?? -1;
function ranked() {
  const words = search.toLowerCase().split(/\s+/);
  const found = [...trials.values()].filter((one) => words.every((word) => one.text.includes(word)));
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : (a ?? -1) - (b ?? -1));
  return found.sort((a, b) => compare(a[sort.key], b[sort.key]) * (sort.down ? -1 : 1) || a.number - b.number);
}

function showTable() {
  const found = ranked(), body = document.querySelector("#trials tbody");
  body.replaceChildren(...found.slice(0, rows).map((one) => {
    const row = document.createElement("tr");
    const cells = [one.number, one.title, null, percent(one.best), `${one.epoch} of ${one.epochs}`, one.lr?.toPrecision(3) ?? "", one.forecast?.text ?? (OVER.includes(one.state) ? "" : "–"), one.reason];
    cells.forEach((text, place) => { const cell = row.insertCell(); cell.textContent = text ?? ""; if (place >= 3 && place <= 5) cell.className = "n"; });
    const chip = document.createElement("span");
    chip.className = `chip ${one.state}`;
    chip.textContent = one.state;
    row.cells[2].append(chip);
    row.cells[7].className = "reason";
    const last = row.insertCell();
    last.className = "do";
    const verbs = { running: ["pause", "stop"], waiting: ["unpause", "pause", "stop"], paused: ["unpause", "stop"] }[one.state] ?? [];
    for (const verb of verbs) {
      const button = document.createElement("button");
      button.textContent = verb === "unpause" ? "continue" : verb;
      button.ariaLabel = `${button.textContent} trial ${one.number}`;
      button.disabled = !driven;
      button.addEventListener("click", () => act(verb, { trial: one.number }));
      last.append(button);
    }
    if (one.epoch && one.state !== "done" && one.state !== "failed") {
      const button = document.createElement("button"), form = document.querySelector("form[data-verb=fork]");
      button.textContent = "fork";
      button.ariaLabel = `fork trial ${one.number}`;
      button.addEventListener("click", () => { form.elements.trial.value = one.number; form.elements.settings.focus(); });
      last.append(button);
    }
    return row;
  }));
  put("more", found.length > rows ? `${rows} of ${found.length} trials are shown; search for others.` : found.length ? "" : trials.size ? "No trial has these words." : "No trial has begun yet.");
  document.getElementById("further").hidden = found.length <= rows;
}

function canvas(id) {
  const element = document.getElementById(id), ratio = window.devicePixelRatio || 1;
  const width = element.clientWidth, height = element.clientHeight;
  element.width = width * ratio;
  element.height = height * ratio;
  const pen = element.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = colour("--soft");
  return { pen, width, height };
}

// Of many trials those with the best accuracy and the latest ones; all of them on request.
function withCurves() {
  const all = [...trials.values()].filter((one) => one.curve.length), many = all.length > 2 * CURVES;
  document.getElementById("drawn").hidden = !many;
  put("drawn-about", `The ${CURVES} best and the ${CURVES} latest of ${all.length} trials.`);
  if (!many || document.getElementById("all").checked) return all;
  const best = all.toSorted((a, b) => merit(b) - merit(a)).slice(0, CURVES), latest = all.toSorted((a, b) => b.number - a.number).slice(0, CURVES);
  return [...new Set([...latest, ...best.reverse()])]; // the best above
}

function drawCurves() {
  const shown = withCurves();
  const { pen, width, height } = canvas("curves"), left = 48, bottom = 26, top = 12, right = 14;
  let epochs = 1, low = 1, high = 0;
  for (const one of shown) for (const [epoch, share] of one.curve) { epochs = Math.max(epochs, epoch); low = Math.min(low, share); high = Math.max(high, share); }
  if (high === 0 && low === 1) { pen.fillText("no epoch is finished yet", left, height / 2); return; }
  low = Math.max(0, low - 0.02); high = Math.min(1, high + 0.02);
  const x = (epoch) => left + (epochs === 1 ? 0.5 : (epoch - 1) / (epochs - 1)) * (width - left - right);
  const y = (share) => height - bottom - ((share - low) / (high - low)) * (height - bottom - top);
  pen.strokeStyle = colour("--line");
  const apart = [0.01, 0.02, 0.05, 0.1, 0.2].find((step) => (high - low) / step <= 8);
  for (let share = Math.ceil(low / apart) * apart; share <= high; share += apart) {
    pen.beginPath(); pen.moveTo(left, y(share)); pen.lineTo(width - right, y(share)); pen.stroke();
    pen.fillText(percent(share, 0), 8, y(share) + 4);
  }
  for (let step = 0, every = Math.max(1, Math.ceil(epochs / 10)); step < epochs; step += every) pen.fillText(String(step + 1), x(step + 1) - 3, height - 8);
  const best = shown.reduce((a, b) => (merit(b) > merit(a) ? b : a)), running = colour("--good"), other = colour("--soft");
  for (const one of shown) if (one !== best) line(pen, one, x, y, one.state === "running" ? running : other, 1, shown.length > 50 ? 0.25 : 0.6);
  line(pen, best, x, y, colour("--bad"), 2.5, 1);
}

function line(pen, one, x, y, stroke, size, alpha) {
  pen.strokeStyle = pen.fillStyle = stroke; pen.lineWidth = size; pen.globalAlpha = alpha;
  pen.beginPath();
  one.curve.forEach(([epoch, share], place) => (place ? pen.lineTo(x(epoch), y(share)) : pen.moveTo(x(epoch), y(share))));
  pen.stroke();
  if (one.curve.length === 1) { pen.beginPath(); pen.arc(x(one.curve[0][0]), y(one.curve[0][1]), 3, 0, 7); pen.fill(); }
  pen.globalAlpha = 1;
}

function drawTimeline() {
  const { pen, width, height } = canvas("timeline");
  const spans = [...trials.values()].flatMap(({ state, spans }) => spans.map(([began, ended]) => ({ state, began, ended }))).sort((a, b) => a.began - b.began);
  if (!spans.length) return;
  const first = spans[0].began, last = Math.max(...spans.map((one) => one.ended ?? Date.now()), first + 1000), lanes = [];
  const placed = spans.map((one) => { let lane = lanes.findIndex((end) => end <= one.began); if (lane < 0) lane = lanes.length; lanes[lane] = one.ended ?? last; return lane; });
  const deep = (height - 12) / lanes.length, x = (when) => 8 + ((when - first) / (last - first)) * (width - 16);
  const colours = { running: colour("--good"), done: colour("--accent"), failed: colour("--bad") }, other = colour("--soft");
  spans.forEach((one, place) => { pen.fillStyle = colours[one.state] ?? other; pen.fillRect(x(one.began), 6 + placed[place] * deep, Math.max(1.5, x(one.ended ?? last) - x(one.began) - 1), Math.max(1, deep - 2)); });
  put("timeline-about", `When trials had a worker, from ${new Date(first).toLocaleTimeString()} to ${new Date(last).toLocaleTimeString()}: blue done, green running, orange failed, grey others.`);
}

function show() {
  drawing = false;
  showTable();
  drawCurves();
  drawTimeline();
  if (version) performance.mark("shown");
}
function later() { if (!drawing) { drawing = true; requestAnimationFrame(show); } }

function take(state) {
  version = state.version;
  for (const news of state.trials) {
    const one = { ...trials.get(news.number), ...news };
    one.text = `${one.number} ${one.title} ${one.state} ${one.reason}`.toLowerCase();
    trials.set(one.number, one);
  }
  if (state.summary) showSummary(state.summary);
  later();
}

function listen() {
  const source = new EventSource(`${base}/events?since=${version}`);
  source.onmessage = (event) => take(JSON.parse(event.data));
  source.onerror = () => { source.close(); setTimeout(listen, 2000); };
}

async function act(verb, more) {
  const what = more.trial == null ? `the sweep ${name}` : `trial ${more.trial}`;
  if (verb === "stop" && !confirm(`Stop ${what}?` + (more.trial == null ? " It can be resumed." : " It will not continue."))) return;
  const undo = undoOf(verb, more);
  document.getElementById("undo").hidden = true;
  put("answer", `${verb} …`);
  const response = await fetch(`${base}/acts`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ verb, ...more }) });
  const content = await response.json();
  put("answer", response.ok ? content.answer : typeof content.detail === "string" ? content.detail : "not valid: settings are KEY=VALUE, trials are numbers");
  undoing = response.ok ? undo : null;
  document.getElementById("undo").hidden = !undoing;
}

// What takes an act back; null where nothing does.
function undoOf(verb, more) {
  if (verb === "pause" || verb === "unpause") return [verb === "pause" ? "unpause" : "pause", more];
  if (verb !== "set" || shareNow() === "") return null;
  return ["set", { settings: [`${setForm.elements.key.value}=${shareNow()}`] }];
}
document.getElementById("undo").addEventListener("click", () => act(...undoing));
setForm.elements.key.addEventListener("change", showShare);

document.getElementById("mlflow").addEventListener("click", async (event) => {
  const place = document.getElementById("mlflow-answer"), link = document.createElement("a");
  event.target.disabled = true;
  place.textContent = "starting MLflow, which takes some seconds …";
  const response = await fetch(`${base}/mlflow`, { method: "POST" }), content = await response.json();
  event.target.disabled = false;
  if (!response.ok) { place.textContent = content.detail; return; }
  link.href = link.textContent = content.address;
  link.target = "_blank";
  link.rel = "noopener";
  place.replaceChildren(link);
});

for (const button of document.querySelectorAll(".acts > button")) button.addEventListener("click", () => act(button.dataset.verb, {}));
for (const form of document.querySelectorAll(".acts form")) form.addEventListener("submit", (event) => {
  event.preventDefault();
  const value = new FormData(form), verb = form.dataset.verb;
  if (verb === "extend") { act(verb, { [value.get("key")]: value.get("value").trim() }); return; }
  const settings = verb === "set" ? [`${value.get("key")}=${value.get("value").trim()}`] : value.get("settings").trim().split(/\s+/);
  act(verb, verb === "fork" ? { settings, trial: Number(value.get("trial")) } : { settings });
});
for (const button of document.querySelectorAll("#trials th button")) button.addEventListener("click", () => {
  sort = { key: button.dataset.key, down: sort.key === button.dataset.key ? !sort.down : button.dataset.key === "best" };
  for (const header of document.querySelectorAll("#trials th")) header.removeAttribute("aria-sort");
  button.closest("th").setAttribute("aria-sort", sort.down ? "descending" : "ascending");
  later();
});
document.getElementById("search").addEventListener("input", (event) => { search = event.target.value; rows = ROWS; later(); });
document.getElementById("further").addEventListener("click", () => { rows += ROWS; later(); });
document.getElementById("all").addEventListener("change", later);
window.addEventListener("resize", later);
listen();
