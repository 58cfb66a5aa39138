// One sweep alive: the state comes as server-sent events; only what changed is sent and drawn again.
"use strict";
const { name, resume, unpause } = document.getElementById("sweep").dataset;
const base = `/api/v1/sweeps/${encodeURIComponent(name)}`;
const trials = new Map();
const ROWS = 200, CURVES = 100, OVER = ["done", "pruned", "failed", "stopped"];
let rows = ROWS, driven = false, updated = 0, best = null, groups = new Map(), share = {}, undoing = null, sort = { key: "best", down: true }, search = "", drawing = false, version = 0, sweepId = null;
const percent = (share, digits = 1) => (share == null ? "none" : `${(100 * share).toFixed(digits)}\u00a0%`); // on one line
const put = (id, text) => { document.getElementById(id).textContent = text; };
const colour = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();

function duration(seconds) {
  if (seconds == null) return "unknown";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function showSummary(now) {
  const { trials: counts, begun } = now.digest, over = ["finished", "paused"].includes(now.state);
  put("line", `${now.why || (now.state === "waiting" ? "queued" : now.state)}; space ${now.digest.space}, data ${now.digest.dataset}` + (now.digest.stopped ? `; ${now.digest.stopped}` : "") + (now.driver || now.state === "finished" ? "" : `; continue it with: ${now.state === "paused" ? `${unpause} and then ` : ""}${resume}`));
  best = now.digest.best;
  showGroups(now.groups);
  put("best", percent(best?.value));
  put("best-about", best ? (best.mean_of ? `mean of ${best.mean_of}, the best is trial ${best.trial}` : `trial ${best.trial}, epoch ${best.epoch}`) + (best.low == null ? "" : `; 95\u00a0% interval ${percent(best.low)}\u00a0to\u00a0${percent(best.high)}`) : "no epoch is finished yet");
  put("count", `${begun ?? trials.size} of ${now.asked}`);
  put("count-about", (begun < trials.size ? `${trials.size} nets: ` : "") + Object.entries(counts).map(([state, n]) => `${n} ${state}`).join(", "));
  put("slots", String(now.slots));
  put("driver", now.driver ? `on ${now.driver.host}, process ${now.driver.pid}` : "no driver");
  put("left", over ? now.state : duration(now.seconds_left));
  put("left-about", over || now.seconds_left == null ? "" : "at the speed so far");
  driven = now.driver != null;
  updated = now.digest.updated_ms;
  for (const [verb, works] of Object.entries({ pause: driven, unpause: driven || now.state === "paused", stop: driven })) {
    const button = document.querySelector(`.acts > [data-verb=${verb}]`);
    button.disabled = !works;
    button.title = works ? "" : "The sweep has no driver, so nothing runs.";
  }
  showFront(now.digest.pareto);
  document.querySelector("[data-verb=retry]").hidden = !counts.failed;
  share = now.set;
  showShare();
  window.dispatchEvent(new CustomEvent("summary", { detail: now }));
}

// Where trials are in groups, the table is in the order of the groups, as it is in a terminal.
function showGroups(ranked) {
  const header = document.getElementById("of-group"), first = header.hidden && ranked.length;
  groups = new Map(ranked.flatMap((group, place) => group.trials.map((number) => [number, { ...group, place }])));
  header.hidden = !ranked.length;
  if (first) sortBy("place");
}

function sortBy(key) {
  sort = { key, down: sort.key === key ? !sort.down : key === "best" };
  for (const header of document.querySelectorAll("#trials th")) header.removeAttribute("aria-sort");
  document.querySelector(`#trials [data-key=${key}]`).closest("th").setAttribute("aria-sort", sort.down ? "descending" : "ascending");
  later();
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
const shareOf = (key) => String(share[key.replace("-", "_")] ?? "");
let shareShown = "";
// A value that the user has typed stays.
function showShare() {
  const input = setForm.elements.value, now = shareOf(setForm.elements.key.value);
  if (input.value === shareShown || input.value === now) input.value = shareShown = now;
}

const merit = (one) => one.best ?? -1;
function ranked() {
  const words = search.toLowerCase().split(/\s+/);
  const found = [...trials.values()].filter((one) => words.every((word) => one.text.includes(word)));
  const value = (one) => (sort.key === "place" ? groups.get(one.number)?.place ?? groups.size : one[sort.key] ?? -1);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  return found.sort((a, b) => compare(value(a), value(b)) * (sort.down ? -1 : 1) || a.number - b.number);
}

// The row of each trial stays the same element while its trial changes: an update takes neither the focus nor a click.
const tableRows = new Map();
const fill = (element, text) => { if (element.textContent !== text) element.textContent = text; };

function rowOf(one) {
  let row = tableRows.get(one.number);
  if (!row) {
    row = document.createElement("tr");
    row.tabIndex = -1;
    for (const kind of ["", "", "", "n", "n", "n", "n", "", "reason", "do"]) row.insertCell().className = kind;
    row.cells[2].append(document.createElement("span"));
    tableRows.set(one.number, row);
  }
  const chip = row.cells[2].firstChild, last = row.cells[9], group = groups.get(one.number);
  const cells = [one.number, one.title, null, percent(one.best), group?.mean == null ? "" : `${percent(group.mean)} of ${group.mean_of}`, `${one.epoch} of ${one.epochs}`, one.lr?.toPrecision(3), one.forecast?.text ?? (OVER.includes(one.state) ? "" : "–"), one.reason];
  cells.forEach((text, place) => { if (place !== 2) fill(row.cells[place], String(text ?? "")); });
  row.cells[4].hidden = !groups.size;
  chip.className = `chip ${one.state}`;
  fill(chip, one.state);
  const verbs = [...({ running: ["pause", "stop"], waiting: ["unpause", "pause", "stop"], paused: ["unpause", "stop"] }[one.state] ?? []), ...(one.epoch && !one.is_over ? ["fork"] : [])];
  if (last.dataset.verbs !== verbs.join()) {
    const focused = last.contains(document.activeElement) && document.activeElement.dataset.verb;
    last.replaceChildren(...verbs.map((verb) => actButton(verb, one.number)));
    if (focused) (last.querySelector(`[data-verb=${focused}]`) ?? row).focus({ preventScroll: true }); // never on another act
  }
  last.dataset.verbs = verbs.join();
  return row;
}

function actButton(verb, number) {
  const button = document.createElement("button");
  button.dataset.verb = verb;
  button.dataset.trial = number;
  button.textContent = verb === "unpause" ? "continue" : verb;
  button.ariaLabel = `${button.textContent} trial ${number}`;
  return button;
}

function showTable() {
  const found = ranked(), body = document.querySelector("#trials tbody"), shown = found.slice(0, rows).map(rowOf), kept = new Set(shown), focused = document.activeElement;
  for (const row of [...body.rows]) if (!kept.has(row)) row.remove();
  let next = body.firstChild;
  for (const row of shown) if (row === next) next = next.nextSibling; else body.insertBefore(row, next);
  if (document.activeElement !== focused) focused.focus({ preventScroll: true }); // its row was moved
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
  const first = trials.get(best?.trial) ?? shown[0], running = colour("--good"), other = colour("--soft");
  for (const one of shown) if (one !== first) line(pen, one, x, y, one.state === "running" ? running : other, 1, shown.length > 50 ? 0.25 : 0.6);
  line(pen, first, x, y, colour("--bad"), 2.5, 1);
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
  const now = driven ? Date.now() : updated; // a driver that was killed did not record when its workers ended
  const spans = [...trials.values()].flatMap(({ state, spans }) => spans.map(([began, ended]) => ({ state, began, ended: ended ?? Math.max(began, now) }))).sort((a, b) => a.began - b.began);
  if (!spans.length) return;
  const first = spans[0].began, last = Math.max(...spans.map((one) => one.ended), first + 1000), lanes = [];
  const placed = spans.map((one) => { let lane = lanes.findIndex((end) => end <= one.began); if (lane < 0) lane = lanes.length; lanes[lane] = one.ended; return lane; });
  const deep = (height - 12) / lanes.length, x = (when) => 8 + ((when - first) / (last - first)) * (width - 16);
  const colours = { running: colour("--good"), done: colour("--accent"), failed: colour("--bad") }, other = colour("--soft");
  spans.forEach((one, place) => { pen.fillStyle = colours[one.state] ?? other; pen.fillRect(x(one.began), 6 + placed[place] * deep, Math.max(1.5, x(one.ended) - x(one.began) - 1), Math.max(1, deep - 2)); });
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
  if (sweepId !== state.sweep_id) { trials.clear(); tableRows.clear(); } // another sweep under the same name
  sweepId = state.sweep_id;
  for (const news of state.trials) {
    const one = { ...trials.get(news.number), ...news };
    one.text = `${one.number} ${one.title} ${one.state} ${one.reason}`.toLowerCase();
    trials.set(one.number, one);
  }
  if (state.summary) showSummary(state.summary);
  later();
}

// A hidden tab has no stream: browsers allow six connections per server, so the page in a seventh tab would never load.
let source = null;
const say = (fault) => { put("lost", fault); document.getElementById("lost").hidden = false; };
function listen() {
  source?.close();
  source = document.hidden ? null : new EventSource(`${base}/events?since=${version}`);
  if (!source) return;
  const opened = source;
  opened.onopen = () => { document.getElementById("lost").hidden = true; };
  opened.onmessage = (event) => take(JSON.parse(event.data));
  opened.addEventListener("fault", (event) => { opened.close(); say(JSON.parse(event.data)); });
  opened.onerror = () => {
    opened.close();
    say("The server does not answer. This page shows the last state that it sent, and asks again every two seconds.");
    setTimeout(() => { if (source === opened) listen(); }, 2000);
  };
}
document.addEventListener("visibilitychange", listen);

async function act(verb, more) {
  const undo = undoOf(verb, more);
  if (!undo && !confirm(questionOf(verb, more))) return;
  document.getElementById("undo").hidden = true;
  put("answer", `${verb} …`);
  undoing = null;
  try {
    const { answer } = await request(`${base}/acts`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ verb, ...more }) });
    put("answer", answer);
    undoing = undo;
  } catch (error) { put("answer", error.message); }
  document.getElementById("undo").hidden = !undoing;
}

const pausedByPersons = () => [...trials.values()].filter((one) => one.is_paused_by_person).map((one) => one.number).sort((a, b) => a - b);

// What takes an act back; null where nothing does, so that it is confirmed first.
function undoOf(verb, more) {
  if (verb === "pause") return ["unpause", more];
  if (verb === "unpause") return more.trial == null && pausedByPersons().length ? null : ["pause", more];
  if (verb !== "set") return null;
  const [key] = more.settings[0].split("=");
  return shareOf(key) === "" ? null : ["set", { settings: [`${key}=${shareOf(key)}`] }];
}

function questionOf(verb, { trial, settings, trials: number, epochs }) {
  const given = settings?.join(" ");
  if (verb === "stop") return trial == null ? `Stop the sweep ${name}? It can be resumed.` : `Stop trial ${trial}? It will not continue.`;
  if (verb === "unpause") return `Continue the sweep ${name}? The trials that persons paused continue too: ${pausedByPersons().join(", ")}.`;
  if (verb === "extend") return `Extend the sweep ${name}: ${number ? `trials ${number}` : `epochs per trial ${epochs}`}?`;
  if (verb === "fork") return `Train a new trial from the state of trial ${trial} with ${given}?`;
  if (verb === "try") return `Train a new trial like the best one, but with ${given}?`;
  return verb === "set" ? `Set ${given}?` : `Train the failed trials of ${name} again?`;
}

document.getElementById("undo").addEventListener("click", () => act(...undoing));
setForm.elements.key.addEventListener("change", () => { setForm.elements.value.value = shareShown; showShare(); });

document.getElementById("mlflow").addEventListener("click", async (event) => {
  const link = document.createElement("a");
  event.target.disabled = true;
  put("mlflow-answer", "starting MLflow, which takes some seconds …");
  try {
    const { address } = await request(`${base}/mlflow`, { method: "POST" });
    link.href = link.textContent = address;
    link.target = "_blank";
    link.rel = "noopener";
    document.getElementById("mlflow-answer").replaceChildren(link);
  } catch (error) { put("mlflow-answer", error.message); }
  event.target.disabled = false;
});

for (const button of document.querySelectorAll(".acts > button")) button.addEventListener("click", () => act(button.dataset.verb, {}));
for (const form of document.querySelectorAll(".acts form")) form.addEventListener("submit", (event) => {
  event.preventDefault();
  const value = new FormData(form), verb = form.dataset.verb;
  if (verb === "extend") { act(verb, { [value.get("key")]: value.get("value").trim() }); return; }
  const settings = verb === "set" ? [`${value.get("key")}=${value.get("value").trim()}`] : value.get("settings").trim().split(/\s+/);
  act(verb, verb === "fork" ? { settings, trial: Number(value.get("trial")) } : { settings });
});
document.querySelector("#trials tbody").addEventListener("click", ({ target: { dataset: { verb, trial } } }) => {
  const form = document.querySelector("form[data-verb=fork]");
  if (verb === "fork") { form.elements.trial.value = trial; form.elements.settings.focus(); } else if (verb) act(verb, { trial: Number(trial) });
});
for (const button of document.querySelectorAll("#trials th button")) button.addEventListener("click", () => sortBy(button.dataset.key));
document.getElementById("search").addEventListener("input", (event) => { search = event.target.value; rows = ROWS; later(); });
document.getElementById("further").addEventListener("click", () => { rows += ROWS; later(); });
document.getElementById("all").addEventListener("change", later);
window.addEventListener("resize", later);
listen();
