"use strict";
let state = null, chosen = null, latest = 0;
const maxLoss = () => Number(at("max-loss")?.value ?? 0);

function showCandidates() {
  at("candidates").replaceChildren(...state.candidates.map((one, i) => {
    const row = element("tr");
    row.append(element("th", i === chosen ? `${i + 1} (chosen)` : `${i + 1}`, { scope: "row" }));
    for (const text of [
      millions(one.macs), millions(one.params), size(one.bytes),
      one.input_size.join(" × "), `${(one.work_ratio ?? one.mac_ratio).toFixed(2)} ×`,
      percent(one.accuracy), `${points(one.loss_pp)} (${points(one.low_pp)} to ${points(one.high_pp)})`,
      `${points(one.expected_pp)} ± ${one.uncertain_pp.toFixed(1)}`,
    ]) row.append(element("td", text));
    if (i === chosen) row.setAttribute("aria-current", "true");
    return row;
  }));
}

async function choose() {
  if (!state) return; // which chooses when it has come
  const turn = ++latest;
  if (at("max-loss")) at("max-loss-shown").textContent = `${maxLoss().toFixed(1)} points`;
  try {
    const { candidate } = await call("api/choose", { max_loss: maxLoss() });
    if (turn !== latest) return;
    chosen = candidate;
    const one = state.candidates[chosen];
    const found = state.n_val ? `${points(one.loss_pp)} was found on ${state.n_val} held-out images.`
      : "it was not measured on images.";
    at("chosen").textContent = `Network ${chosen + 1}: a loss of ${points(one.expected_pp)} ± `
      + `${one.uncertain_pp.toFixed(1)} points is expected of it; ${found}`;
    showNumbers([
      [`${one.mac_ratio.toFixed(2)} ×`, "fewer multiply-adds"],
      [`${one.param_ratio.toFixed(2)} ×`, "fewer parameters"],
      [size(one.bytes), "file"],
      [percent(one.accuracy), `right, ${percent(one.accuracy_before)} before`],
    ]);
    if (image) await ask();
  } catch (error) {
    if (turn !== latest) return;
    chosen = null;
    at("chosen").textContent = error.message;
    showNumbers([]);
  }
  showCandidates();
}

async function ask() {
  if (chosen === null) return;
  at("answer").replaceChildren(element("p", "Asking…"));
  try {
    const asked = chosen, said = await call(`api/ask?of=${asked}`, image);
    if (asked === chosen) showAnswers([[`Network ${asked + 1}`, said]]);
  } catch (error) {
    at("answer").replaceChildren(element("p", error.message, { class: "note warn" }));
  }
}

takeImages(ask);
at("max-loss")?.addEventListener("input", choose);
writeRuns(() => ({ max_loss: maxLoss() }));
if (!at("max-loss")) at("write").hidden = at("export").hidden = true;
call("api/state").then((found) => {
  state = found;
  showWritten(state.written);
  choose();
}, (error) => { at("chosen").textContent = error.message; });
