"use strict";
// The result: filling, comparing, and the inspector that shows where a place was copied from. Goes with page.js.

async function fill() {
  if (state.request) return;
  if (!state.file) return say("there is no image yet; open one or pick an example");
  if (!state.given && !has("hole")) return say("there is no hole; paint over what is to be filled, or open a mask file");
  const abort = (state.request = new AbortController());
  refresh();
  const begin = Date.now();
  const clock = setInterval(() => ($("fill").textContent = `Filling… ${Math.round((Date.now() - begin) / 1000)} s`), 500);
  const sent = state.file;
  try {
    const form = new FormData();
    form.append("image", sent);
    form.append("mask", await whiteFile("hole"));
    for (const kind of ["sketch", "source"]) if (has(kind)) form.append(kind, await whiteFile(kind));
    form.append("grow", $("grow").value || "0");
    form.append("blend", $("blend").value);
    if ($("model").value) form.append("model", $("model").value);
    const response = await fetch("api/fill", { method: "POST", body: form, signal: abort.signal });
    if (!response.ok) throw new Error((await response.json()).error);
    await show(response, await response.blob());
    say();
  } catch (error) {
    if (error.name !== "AbortError") say(error.name === "TypeError" ? "the server does not answer; is it still running?" : error.message);
  } finally {
    clearInterval(clock);
    state.request = null;
    refresh();
  }
}
$("fill").addEventListener("click", fill);
$("cancel").addEventListener("click", () => state.request?.abort());

async function show(response, filled) {
  const name = response.headers.get("x-answer");
  const mask = await (await fetch(`api/answers/${name}/mask`)).blob();
  const bitmap = await createImageBitmap(mask);
  for (const url of state.answer?.urls ?? []) URL.revokeObjectURL(url);
  const before = await new Promise((done) => $("image").toBlob(done, "image/png"));
  const urls = [filled, mask, before].map((blob) => URL.createObjectURL(blob));
  const sources = response.headers.get("x-sources") === "1";
  state.answer = { name, width: bitmap.width, height: bitmap.height, filled, urls, sources, known: new Map(), asking: false };
  [$("after").src, , $("before").src] = urls;
  for (const image of [$("after"), $("before")]) image.style.width = `${enlarged(bitmap.width, bitmap.height)}px`;
  [$("download").href, $("download-mask").href] = urls;
  $("text").textContent = response.headers.get("x-method");
  $("copied").hidden = !sources;
  if (sources) $("copied-image").src = `api/answers/${name}/copied`;
  inspect(null);
  $("compare").value = 0;
  compare();
  $("result").hidden = false;
  await Promise.all([$("after").decode(), $("before").decode()]);
}

function compare() {
  $("before").style.clipPath = `inset(0 ${100 - $("compare").value}% 0 0)`;
}
$("compare").addEventListener("input", compare);
$("reuse").addEventListener("click", () => open(new File([state.answer.filled], "filled.png", { type: "image/png" })));

// --- The inspector: where a filled place was copied from ---

async function inspect(point) {
  const answer = state.answer;
  const canvas = $("sources");
  [canvas.width, canvas.height] = [canvas.clientWidth || 1, canvas.clientHeight || 1];
  const hint = answer?.sources ? "Point at a filled place to see where it was copied from." : "Filled in parts: no single map of what was copied from where.";
  $("inspector").textContent = hint;
  if (!answer?.sources || !point || answer.asking) return;
  const [x, y] = point.map(Math.floor);
  const cell = `${Math.floor(x / 4)},${Math.floor(y / 4)}`;
  if (!answer.known.has(cell)) {
    answer.asking = true;
    try {
      const response = await fetch(`api/answers/${answer.name}/sources?x=${x}&y=${y}`);
      answer.known.set(cell, response.ok ? await response.json() : null);
      if (response.status === 404) $("inspector").textContent = "The server does not keep this answer any more; fill again.";
    } catch {
      return;
    } finally {
      answer.asking = false;
    }
  }
  const found = answer.known.get(cell);
  if (found && answer === state.answer) light(canvas, found, answer);
}

function light(canvas, found, { width, height }) {
  const context = canvas.getContext("2d");
  const [across, down] = [canvas.width / width, canvas.height / height];
  const rectangle = ([x, y], edge = 0) =>
    [x * across - edge, y * down - edge, found.cell * across + 2 * edge, found.cell * down + 2 * edge];
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "rgb(0 0 0 / 60%)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const largest = found.sources.length ? found.sources[0][2] : 1;
  const middle = ([x, y]) => [(x + found.cell / 2) * across, (y + found.cell / 2) * down];
  Object.assign(context, { strokeStyle: PAINT, lineWidth: 2 });
  for (const source of found.sources.slice(0, 3)) {
    context.beginPath();
    context.moveTo(...middle(source));
    context.lineTo(...middle(found.target));
    context.stroke();
  }
  for (const source of [...found.sources].reverse()) { // frames lie around the cells, which may be four pixels wide
    const strength = source[2] / largest;
    context.globalCompositeOperation = "destination-out";
    context.fillStyle = `rgb(0 0 0 / ${0.15 + 0.85 * strength})`;
    context.fillRect(...rectangle(source));
    context.globalCompositeOperation = "source-over";
    context.strokeStyle = `rgb(255 200 0 / ${0.15 + 0.85 * strength})`;
    context.lineWidth = 1 + strength;
    context.strokeRect(...rectangle(source, context.lineWidth / 2));
  }
  context.clearRect(...rectangle(found.target));
  Object.assign(context, { strokeStyle: PAINT, lineWidth: 2 });
  context.strokeRect(...rectangle(found.target, 1));
  const shares = found.sources.slice(0, 3).map((source) => `${(100 * source[2]).toFixed(source[2] < 0.1 ? 1 : 0)} %`);
  const rest = found.sources.length + found.others - shares.length;
  $("inspector").textContent = `This place was copied from the lit squares: ${shares.join(", ")}${rest > 0 ? ` and ${rest} smaller ones` : ""}.`;
}

for (const kind of ["pointermove", "pointerdown"]) {
  $("slider").addEventListener(kind, (event) => {
    if (state.answer) inspect(place(event, $("after"), state.answer.width, state.answer.height));
  });
}
$("slider").addEventListener("pointerleave", () => inspect(null));
