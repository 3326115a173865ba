"use strict";
const at = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token") ?? "";
const headers = { [document.body.dataset.tokenHeader]: token };
let state = null, chosen = null, image = null, latest = 0;

async function call(path, body) {
  const how = body === undefined ? { headers }
    : { method: "POST", headers, body: body instanceof Blob ? body : JSON.stringify(body) };
  const response = await fetch(path, how);
  if (response.status === 403) throw new Error(await response.text());
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Names are text, wherever they come from: nothing here is made of HTML.
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const points = (value, digits = 1) => `${value > 0 ? "+" : ""}${value.toFixed(digits)}`.replace("-", "−");
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

function showCandidates() {
  at("candidates").replaceChildren(...state.candidates.map((one, i) => {
    const row = element("tr");
    row.append(element("th", i === chosen ? `${i + 1} (chosen)` : `${i + 1}`, { scope: "row" }));
    for (const text of [
      `${(one.macs / 1e6).toFixed(1)} M`, `${(one.params / 1e6).toFixed(2)} M`, megabytes(one.bytes),
      one.input_size.join(" × "), `${(one.work_ratio ?? one.mac_ratio).toFixed(2)} ×`,
      percent(one.accuracy), `${points(one.loss_pp)} (${points(one.low_pp)} to ${points(one.high_pp)})`,
      `${points(one.expected_pp)} ± ${one.uncertain_pp.toFixed(1)}`,
    ]) row.append(element("td", text));
    if (i === chosen) row.setAttribute("aria-current", "true");
    return row;
  }));
}

function showNumbers() {
  const one = state.candidates[chosen];
  at("numbers").replaceChildren(...[
    [`${one.mac_ratio.toFixed(2)} ×`, "fewer multiply-adds"],
    [`${one.param_ratio.toFixed(2)} ×`, "fewer parameters"],
    [megabytes(one.bytes), "file"],
    [percent(one.accuracy), `right, ${percent(one.accuracy_before)} before`],
  ].map(([number, what]) => {
    const item = element("li");
    item.append(element("b", number), element("span", what));
    return item;
  }));
}

async function choose() {
  const value = Number(at("max-loss").value), turn = ++latest;
  at("max-loss-shown").textContent = `${value.toFixed(1)} points`;
  try {
    const { candidate } = await call("api/choose", { max_loss: value });
    if (turn !== latest) return;
    chosen = candidate;
    const one = state.candidates[chosen];
    at("chosen").textContent = `Network ${chosen + 1}: a loss of ${points(one.expected_pp)} ± `
      + `${one.uncertain_pp.toFixed(1)} points is expected of it; ${points(one.loss_pp)} was found on `
      + `${state.n_val} held-out images.`;
    showNumbers();
    if (image) await ask();
  } catch (error) {
    if (turn !== latest) return;
    chosen = null;
    at("chosen").textContent = error.message;
    at("numbers").replaceChildren();
  }
  showCandidates();
}

function answers(title, best) {
  const part = element("div");
  part.append(element("h3", title));
  const list = element("ol");
  for (const one of best) list.append(element("li", `${one.name}: ${percent(one.share)}`));
  part.append(list);
  return part;
}

function layers(rows) {
  const table = element("table");
  table.append(element("caption", "Channels of the original that fire on this image, by layer"));
  const head = element("tr");
  for (const text of ["Layer", "Kept", "of these fire", "Removed", "of these fire"]) {
    head.append(element("th", text, { scope: "col" }));
  }
  const top = element("thead"), body = element("tbody");
  top.append(head);
  for (const one of rows) {
    const row = element("tr");
    row.append(element("th", one.name, { scope: "row" }));
    for (const n of [one.kept, one.kept_firing, one.removed, one.removed_firing]) row.append(element("td", n));
    body.append(row);
  }
  table.append(top, body);
  const fold = element("details"), wide = element("div", undefined, {
    class: "wide", tabindex: "0", role: "region", "aria-label": "Channels that fire" });
  wide.append(table);
  fold.append(element("summary", "Which neurons fired"), wide);
  return fold;
}

async function ask() {
  if (chosen === null) return;
  at("answer").replaceChildren(element("p", "Asking…"));
  try {
    const said = await call(`api/ask?candidate=${chosen}`, image);
    const both = element("div", undefined, { class: "two" });
    both.append(answers(`Network ${chosen + 1} says`, said.distilled));
    if (said.original) both.append(answers("The original says, among these classes", said.original));
    if (said.original_among_all) both.append(answers("and among all it knows", said.original_among_all));
    const parts = [element("img", undefined, { src: said.picture, alt: "The image", class: "photo" }), both];
    if (said.original) {
      const same = said.original[0].name === said.distilled[0].name;
      parts.splice(1, 0, element("p", same ? "Both say the same." : "They do not agree.", { class: same ? "note" : "note warn" }));
    }
    if (said.layers.length) parts.push(layers(said.layers));
    at("answer").replaceChildren(...parts);
  } catch (error) {
    at("answer").replaceChildren(element("p", error.message, { class: "note warn" }));
  }
}

function take(file) {
  if (!file) return;
  image = file;
  ask();
}
at("image").addEventListener("change", (event) => take(event.target.files[0]));
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
at("drop").addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
at("max-loss").addEventListener("input", choose);

function tell(text, wrong = false) {
  at("told").hidden = false;
  at("told").textContent = text;
  at("told").classList.toggle("warn", wrong);
}

function showWritten(name) {
  at("which").replaceChildren(...state.written.map((one) => element("option", one)));
  if (name) at("which").value = name;
}

async function work(path, body) {
  try {
    let job = await call(path, body);
    at("progress").hidden = at("cancel").hidden = false;
    while (job.state === "running") {
      tell(`${job.what}…`);
      if (job.of) at("progress").value = job.done / job.of;
      else at("progress").removeAttribute("value");
      await new Promise((done) => setTimeout(done, 250));
      job = await call("api/job");
    }
    if (job.state === "failed") tell(job.message, true);
    else if (job.state === "cancelled") tell(`${job.what}: cancelled, nothing was written.`);
    else tell(`Done: ${job.result.name} holds ${job.result.files.join(", ")}.`);
    state = await call("api/state");
    showWritten(job.result?.name);
  } catch (error) {
    tell(error.message, true);
  }
  at("progress").hidden = at("cancel").hidden = true;
}
at("write").addEventListener("submit", (event) => {
  event.preventDefault();
  work("api/make", { max_loss: Number(at("max-loss").value), name: at("name").value });
});
at("export").addEventListener("submit", (event) => {
  event.preventDefault();
  work("api/export", { name: at("which").value, format: at("format").value });
});
at("cancel").addEventListener("click", () => call("api/cancel", {}));

call("api/state").then((found) => {
  state = found;
  showWritten();
  choose();
}, (error) => { at("chosen").textContent = error.message; });
