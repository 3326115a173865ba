"use strict";
// What the pages of all studios do alike: calls with the token, images, writing and exporting.
const at = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token") ?? "";
const headers = { [document.body.dataset.tokenHeader]: token };
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

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
const points = (value, digits = 1) => {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : `${value > 0 ? "+" : ""}${text}`.replace("-", "−");
};
const size = (bytes) => bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
const millions = (n) => n < 1e6 ? `${(n / 1e3).toFixed(1)} k` : `${(n / 1e6).toFixed(n < 1e7 ? 2 : 1)} M`;

function showNumbers(cards) {
  at("numbers").replaceChildren(...cards.map(([number, what]) => {
    const item = element("li");
    item.append(element("b", number), element("span", what));
    return item;
  }));
}

function table(caption, heads, rows) {
  const made = element("table"), top = element("thead"), head = element("tr"), body = element("tbody");
  made.append(element("caption", caption));
  for (const text of heads) head.append(element("th", text, { scope: "col" }));
  top.append(head);
  for (const [name, ...cells] of rows) {
    const row = element("tr");
    row.append(element("th", name, { scope: "row" }));
    for (const text of cells) row.append(element("td", text));
    body.append(row);
  }
  made.append(top, body);
  return made;
}

function answers(title, best, refused) {
  const part = element("div");
  part.append(element("h3", title));
  if (refused) {
    part.append(element("p", refused.is ? "Refused: it shows none of these classes, the rule says "
      + `(${percent(refused.share)}).` : `Not refused: the rule gives ${percent(refused.share)} to none of these classes.`,
    { class: refused.is ? "note warn" : "note" }));
  }
  const list = element("ol");
  for (const one of best) list.append(element("li", `${one.name}: ${percent(one.share)}`));
  part.append(list);
  return part;
}

function fired(title, rows) {
  const fold = element("details"), wide = element("div", undefined, {
    class: "wide", tabindex: "0", role: "region", "aria-label": title });
  wide.append(table("Channels of the original that fire on this image, by layer",
    ["Layer", "Kept", "of these fire", "Removed", "of these fire"],
    rows.map((one) => [one.name, one.kept, one.kept_firing, one.removed, one.removed_firing])));
  fold.append(element("summary", title), wide);
  return fold;
}

// Shows what is said of an image: by networks, each [its name, what it said], and by the original.
function showAnswers(networks) {
  const [[, first]] = networks;
  const both = element("div", undefined, { class: "two" });
  for (const [title, said] of networks) both.append(answers(`${title} says`, said.distilled, said.refused));
  if (first.original) both.append(answers("The original says, among these classes", first.original));
  if (first.original_among_all) both.append(answers("and among all it knows", first.original_among_all));
  const parts = [element("img", undefined, { src: first.picture, alt: "The image", class: "photo" }), both];
  if (first.original) {
    const same = networks.every(([, said]) => said.original[0].name === said.distilled[0].name);
    parts.splice(1, 0, element("p", same ? "They say the same." : "They do not agree.", { class: same ? "note" : "note warn" }));
  }
  for (const [title, said] of networks) {
    const what = networks.length > 1 ? `Which neurons fired, kept and removed by: ${title}` : "Which neurons fired";
    if (said.layers.length) parts.push(fired(what, said.layers));
  }
  at("answer").replaceChildren(...parts);
}

let image = null;
function takeImages(ask) {
  const take = (file) => {
    if (!file) return;
    image = file;
    ask();
  };
  at("image").addEventListener("change", (event) => take(event.target.files[0]));
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
  at("drop").addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
}

function tell(text, wrong = false) {
  at("told").hidden = false;
  at("told").textContent = text;
  at("told").classList.toggle("warn", wrong);
}

function showWritten(written, name) {
  at("which").replaceChildren(...written.map((one) => element("option", one)));
  if (name) at("which").value = name;
}

const STAGES = { fit: "fitting layers", search: "trying networks", evaluate: "reading images", write: "writing", export: "exporting" };
function showJob(job, bar) {
  if (job.of) bar.value = job.done / job.of;
  else bar.removeAttribute("value");
  const stage = STAGES[job.stage];
  return stage ? `${job.what}: ${stage}, ${job.done} of ${job.of}…` : `${job.what}…`;
}

async function work(path, body) {
  const buttons = document.querySelectorAll("#write button, #export button");
  buttons.forEach((one) => { one.disabled = true; });
  try {
    let job = await call(path, body);
    at("progress").hidden = at("cancel").hidden = false;
    while (job.state === "running") {
      tell(showJob(job, at("progress")));
      await pause(250);
      job = await call("api/job");
    }
    if (job.state === "failed") tell(job.message, true);
    else if (job.state === "cancelled") tell(`${job.what}: cancelled, nothing was written.`);
    else tell(`Done: ${job.result.name} holds ${job.result.files.join(", ")}.`);
    showWritten((await call("api/state")).written, job.result?.name);
  } catch (error) {
    tell(error.message, true);
  }
  at("progress").hidden = at("cancel").hidden = true;
  buttons.forEach((one) => { one.disabled = false; });
}

// What `wanted` gives goes with the name to where runs are written.
function writeRuns(wanted) {
  at("write").addEventListener("submit", (event) => {
    event.preventDefault();
    work("api/make", { ...wanted(), name: at("name").value });
  });
  at("export").addEventListener("submit", (event) => {
    event.preventDefault();
    if (at("which").value) work("api/export", { name: at("which").value, format: at("format").value });
    else tell("There is no run to export yet: write one first.", true);
  });
  at("cancel").addEventListener("click", () => call("api/cancel", {}));
}
