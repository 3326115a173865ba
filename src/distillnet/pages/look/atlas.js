"use strict";
let state = null, kept = null, known = null, asking = false, again = false;
const boxes = [...document.querySelectorAll("#classes input")];
const ticked = () => boxes.filter((box) => box.checked);
const nameOf = (box) => box.parentElement.querySelector("b").textContent;

// The mission as it is asked for.
function wish() {
  const classes = ticked().map((box) => Number(box.value));
  return at("by-macs").checked ? { classes, target_macs: Number(at("macs").value) }
    : { classes, max_loss: Number(at("loss").value) };
}
const same = (one, two) => JSON.stringify(one) === JSON.stringify(two);

function showControls() {
  at("how-many").textContent = ticked().length;
  at("macs-shown").textContent = `${Number(at("macs").value).toFixed(2)} ×`;
  at("loss-shown").textContent = `${Number(at("loss").value).toFixed(2)} points`;
  at("macs").disabled = !at("by-macs").checked;
  at("loss").disabled = !at("by-loss").checked;
  at("keep").disabled = !known?.expected;
  at("forget").hidden = !kept;
}

const right = (told) => told ? percent(told.accuracy) : "…";
const lost = (told) => told ? points(told.loss_pp) : "…";
function interval(told) {
  if (told.low_pp !== undefined) return `${points(told.loss_pp)} (95 %: ${points(told.low_pp)} to ${points(told.high_pp)})`;
  return `${points(told.loss_pp)} ± ${told.uncertain_pp.toFixed(1)}`;
}

function show() {
  showControls();
  if (!known) {
    showNumbers([]);
  } else if (known.costs) {
    const best = known.measured ?? known.expected;
    showNumbers([
      [`${known.costs.mac_ratio.toFixed(2)} ×`, "fewer multiply-adds"],
      [size(known.costs.bytes), `file, ${size(state.original.bytes)} before`],
      [`${known.costs.latency_ms.toFixed(1)} ms`, `an image, ${state.original.latency_ms.toFixed(1)} before, estimated`],
      [right(best), best ? `right, ${percent(best.accuracy_before)} before, ${known.measured ? `on ${best.n} images` : "on samples"}` : "right: being worked out"],
    ]);
  } else {
    showNumbers([]);
  }
  compare();
}

function column(mission) {
  const { costs, expected, measured } = mission.known;
  const classes = new Map((measured ?? expected)?.per_class.map((one) => [one.name, one]));
  return { names: mission.names, costs, expected, measured, classes };
}

function compare() {
  const missions = [];
  if (kept) missions.push(["Kept mission", column(kept)]);
  if (known?.costs) missions.push(["This mission", column(now())]);
  if (!missions.length) return at("comparison").replaceChildren();
  const row = (name, original, of) => [name, original, ...missions.map(([, one]) => of(one))];
  const rows = [
    row("Classes", "", (one) => one.names.join(", ")),
    row("Multiply-adds (MACs)", millions(state.original.macs), (one) => `${millions(one.costs.macs)} (${one.costs.mac_ratio.toFixed(2)} × fewer)`),
    row("Parameters", millions(state.original.params), (one) => `${millions(one.costs.params)} (${one.costs.param_ratio.toFixed(2)} × fewer)`),
    row("File, weights in 32 bits", size(state.original.bytes), (one) => size(one.costs.bytes)),
    row("Time of an image, estimated", `${state.original.latency_ms.toFixed(1)} ms`, (one) => `${one.costs.latency_ms.toFixed(1)} ms`),
    row("Right, on samples", "", (one) => one.expected ? `${right(one.expected)}, ${percent(one.expected.accuracy_before)} before` : "…"),
    row("Loss expected, points", "", (one) => one.expected ? interval(one.expected) : "…"),
  ];
  if (missions.some(([, one]) => one.measured)) {
    rows.push(
      row("Right, on images", "", (one) => one.measured ? `${right(one.measured)}, ${percent(one.measured.accuracy_before)} before` : "–"),
      row("Loss found, points", "", (one) => one.measured ? interval(one.measured) : "–"));
  }
  for (const name of new Set(missions.flatMap(([, one]) => [...one.classes.keys()]))) {
    rows.push(row(`Right: ${name}`, "", (one) => {
      const found = one.classes.get(name);
      return found ? `${percent(found.after)}, ${percent(found.before)} before` : "–";
    }));
  }
  const made = table("Missions side by side", ["", "Original", ...missions.map(([title]) => title)], rows);
  made.classList.add("missions");
  at("comparison").replaceChildren(made);
}
const now = () => ({ wish: wish(), names: ticked().map(nameOf), known });

// One question at a time: what changes meanwhile is asked for when the answer is there.
async function refresh() {
  showControls();
  if (!state) return; // which refreshes when it has come
  if (asking) { again = true; return; }
  asking = true;
  do {
    again = false;
    const asked = wish();
    if (asked.classes.length < 2) {
      known = null;
      at("chosen").textContent = "Tick two classes or more.";
      at("again").hidden = true;
      call("api/stop", {});
      show();
      continue;
    }
    at("chosen").textContent = "Counting…";
    try {
      known = await call("api/count", asked);
      if (again) continue;
      say(asked);
      show();
      if (known.expected) await askImage();
      else expect(asked);
    } catch (error) {
      known = null;
      at("chosen").textContent = error.message;
      show();
    }
  } while (again);
  asking = false;
}

function say(asked) {
  const names = ticked().map(nameOf).join(", ");
  if (!known.costs) at("chosen").textContent = `${names}: looking for the smallest network within ${asked.max_loss} points.`;
  else if (!known.costs.reached) at("chosen").textContent = `${names}: ${asked.target_macs} times fewer multiply-adds cannot be reached; this is as far as it goes.`;
  else if (known.expected) at("chosen").textContent = `${names}: a loss of ${interval(known.measured ?? known.expected)} points ${known.measured ? `was found on ${known.measured.n} images` : "is expected"}.`;
  else at("chosen").textContent = `${names}: what it would lose is being worked out.`;
}

// Makes the network in the background, and tells what it loses; another wish takes its place.
async function expect(asked) {
  at("again").hidden = true;
  try {
    let job = await call("api/expect", asked);
    const mine = job.number;
    at("expecting").hidden = false;
    while (job.state === "running" && job.number === mine) {
      at("expecting-told").textContent = showJob(job, at("expecting-progress"));
      await pause(250);
      job = await call("api/expecting");
    }
    if (job.number !== mine) return;
    at("expecting").hidden = true;
    if (!same(asked, wish())) return;
    if (job.state === "done") {
      known = job.result;
      say(asked);
      show();
      await askImage();
    } else {
      at("again").hidden = false;
      at("chosen").textContent = job.state === "failed" ? job.message : "Stopped: what it would lose is not known.";
    }
  } catch (error) {
    at("expecting").hidden = true;
    at("chosen").textContent = error.message;
  }
}

async function askImage() {
  if (!image) return;
  const missions = [["This mission", now()]];
  if (kept) missions.push(["The kept mission", kept]);
  const told = missions.filter(([, one]) => one.known?.expected);
  if (!told.length) {
    at("answer").replaceChildren(element("p", "As soon as the network is made, it is asked.", { class: "note" }));
    return;
  }
  at("answer").replaceChildren(element("p", "Asking…"));
  try {
    const said = [];
    for (const [title, one] of told) {
      said.push([title, await call(`api/ask?of=${encodeURIComponent(JSON.stringify(one.wish))}`, image)]);
    }
    showAnswers(said);
  } catch (error) {
    at("answer").replaceChildren(element("p", error.message, { class: "note warn" }));
  }
}

for (const input of [...boxes, at("macs"), at("loss"), at("by-macs"), at("by-loss")]) input.addEventListener("input", refresh);
at("none").addEventListener("click", () => {
  for (const box of boxes) box.checked = false;
  refresh();
});
at("filter")?.addEventListener("input", () => {
  const part = at("filter").value.trim().toLowerCase();
  for (const box of boxes) box.closest("li").hidden = !nameOf(box).toLowerCase().includes(part);
});
at("keep").addEventListener("click", () => { kept = now(); show(); });
at("forget").addEventListener("click", () => { kept = null; show(); });
at("stop").addEventListener("click", () => call("api/stop", {}));
at("again").addEventListener("click", () => expect(wish()));
takeImages(askImage);
writeRuns(wish);
call("api/state").then((found) => {
  state = found;
  showWritten(state.written);
  refresh();
}, (error) => { at("chosen").textContent = error.message; });
