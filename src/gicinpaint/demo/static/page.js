"use strict";
// The page: open an image and paint a hole over it. result.js does the rest.

const $ = (id) => document.getElementById(id);
const PAINT = "#ff3b8d";
const COLOURS = { source: "#2ecc40", hole: PAINT, sketch: "#00e5ff" }; // of strokes, from the lowest layer to the highest
const SKETCH_WIDTH = 3; // pixels of the image
const state = {
  file: null, // the image as it is sent
  given: null, // a canvas with the hole of a mask file
  strokes: [], // {points, size, erase, kind}, in pixels of the image
  undone: [],
  request: null, // of the fill that is under way
  answer: null, // {name, width, height, hole, urls}
  limits: { upload: Infinity, pixels: Infinity },
};

function say(message) {
  $("message").textContent = message || "";
  $("message").hidden = !message;
}

function refresh() {
  const busy = state.request !== null;
  $("fill").disabled = busy;
  $("fill").textContent = busy ? "Filling…" : "Fill";
  $("cancel").hidden = !busy;
  $("undo").disabled = !state.strokes.length;
  $("redo").disabled = !state.undone.length;
  $("clear").disabled = !state.strokes.length && !state.given;
}

// --- The image and the hole ---

async function open(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return say("this browser cannot show the file; use a JPEG, PNG, WebP or BMP file, or the API");
  }
  if (file.size > state.limits.upload) return say(`the file has ${file.size.toLocaleString()} bytes, max_upload allows ${state.limits.upload.toLocaleString()}`);
  if (bitmap.width * bitmap.height > state.limits.pixels) return say(`the image has ${(bitmap.width * bitmap.height).toLocaleString()} pixels, max_pixels allows ${state.limits.pixels.toLocaleString()}`);
  for (const canvas of [$("image"), $("paint")]) {
    [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
    canvas.hidden = false;
    canvas.style.width = `${enlarged(bitmap.width, bitmap.height)}px`;
  }
  const context = $("image").getContext("2d");
  context.fillStyle = "white"; // transparent parts, as the server takes them
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  document.querySelector("#editor .hint").hidden = true;
  Object.assign(state, { file, given: null, strokes: [], undone: [] });
  say();
  draw();
}

// How wide an image is shown: a small one at a whole multiple of its size, so that a hole can be painted.
function enlarged(width, height) {
  return width * Math.max(1, Math.floor(400 / Math.max(width, height)));
}

async function openMask(file) {
  if (!state.file) return say("open an image first");
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return say("this browser cannot show the mask file");
  }
  const { width, height } = $("image");
  if (bitmap.width !== width || bitmap.height !== height) return say(`the mask must have the image's size, ${width}x${height}, got ${bitmap.width}x${bitmap.height}`);
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  const data = context.getImageData(0, 0, width, height);
  for (let i = 0; i < data.data.length; i += 4) {
    const [r, g, b] = data.data.subarray(i, i + 3);
    data.data.set([255, 59, 141, 0.299 * r + 0.587 * g + 0.114 * b > 127 ? 255 : 0], i);
  }
  context.putImageData(data, 0, 0);
  Object.assign(state, { given: canvas, strokes: [], undone: [] });
  say();
  draw();
}

function drawStroke(context, { points, size, erase, kind }, from = 0) {
  context.globalCompositeOperation = erase ? "destination-out" : "source-over";
  Object.assign(context, { lineCap: "round", lineJoin: "round", lineWidth: size, strokeStyle: COLOURS[kind] });
  context.beginPath();
  context.moveTo(...points[Math.max(0, from - 1)]);
  for (const point of points.slice(from)) context.lineTo(...point);
  context.stroke();
  context.globalCompositeOperation = "source-over";
}

function layer(kind) {
  const { width, height } = $("paint");
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  if (kind === "hole" && state.given) context.drawImage(state.given, 0, 0);
  for (const stroke of state.strokes) if (stroke.kind === kind) drawStroke(context, stroke);
  return canvas;
}

function has(kind) {
  return state.strokes.some((one) => one.kind === kind && !one.erase);
}

function draw() {
  const context = $("paint").getContext("2d");
  context.clearRect(0, 0, $("paint").width, $("paint").height);
  for (const kind in COLOURS) if (kind === "hole" || has(kind)) context.drawImage(layer(kind), 0, 0);
  refresh();
}

function whiteFile(kind) {
  const canvas = layer(kind);
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "source-in";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "black";
  context.fillRect(0, 0, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

function place(event, element, width, height) {
  const box = element.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
}

function showCursor(event) {
  const canvas = $("paint");
  const scale = canvas.clientWidth / canvas.width || 1;
  const [x, y] = place(event, canvas, canvas.clientWidth, canvas.clientHeight);
  const size = Math.max(4, $("size").value * scale);
  Object.assign($("cursor").style, { width: `${size}px`, height: `${size}px`, left: `${x - size / 2}px`, top: `${y - size / 2}px` });
  $("cursor").hidden = false;
}

let stroke = null;
$("paint").addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  $("paint").setPointerCapture(event.pointerId);
  const point = place(event, $("paint"), $("paint").width, $("paint").height);
  const [erase, sketch, source] = ["eraser", "sketch", "source"].map((name) => $(name).ariaPressed === "true");
  const size = sketch && !erase ? SKETCH_WIDTH : Number($("size").value);
  stroke = { points: [point], size, erase, kind: sketch ? "sketch" : source ? "source" : "hole" };
  state.strokes.push(stroke);
  state.undone = [];
  draw();
});
$("paint").addEventListener("pointermove", (event) => {
  showCursor(event);
  if (!stroke) return;
  for (const part of event.getCoalescedEvents?.() ?? [event]) stroke.points.push(place(part, $("paint"), $("paint").width, $("paint").height));
  draw();
});
for (const end of ["pointerup", "pointercancel"]) $("paint").addEventListener(end, () => (stroke = null));
$("paint").addEventListener("pointerleave", () => ($("cursor").hidden = true));

function undo() {
  if (state.strokes.length) state.undone.push(state.strokes.pop());
  draw();
}
function redo() {
  if (state.undone.length) state.strokes.push(state.undone.pop());
  draw();
}
$("undo").addEventListener("click", undo);
$("redo").addEventListener("click", redo);
$("clear").addEventListener("click", () => {
  Object.assign(state, { given: null, strokes: [], undone: [] });
  draw();
});
for (const name of ["eraser", "sketch", "source"])
  $(name).addEventListener("click", () => {
    $(name).ariaPressed = $(name).ariaPressed !== "true";
    if (name !== "eraser") $(name === "sketch" ? "source" : "sketch").ariaPressed = "false"; // one kind at a time
  });

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input[type=number], select, summary, a")) return;
  const key = event.key.toLowerCase();
  if ((event.ctrlKey || event.metaKey) && key === "z") event.shiftKey ? redo() : undo();
  else if ((event.ctrlKey || event.metaKey) && key === "y") redo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (key === "[" || key === "]") $("size").value = Math.round($("size").value * (key === "]" ? 1.2 : 1 / 1.2));
  else if (key === "e") $("eraser").click();
  else if (key === "s" && state.limits.guided) $("sketch").click();
  else if (key === "c" && state.limits.attends) $("source").click();
  else if (key === "enter" && !event.target.matches("button")) fill();
  else return;
  event.preventDefault();
});

function take(input, action) {
  input.addEventListener("change", () => {
    if (input.files.length) action(input.files[0]);
    input.value = "";
  });
}
take(document.querySelector("#upload input"), open);
take(document.querySelector("#mask input"), openMask);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length) open(event.dataTransfer.files[0]);
});

// --- What the server says about itself ---

(async () => {
  const settings = await (await fetch("settings")).json();
  state.limits = settings;
  $("sketch").hidden = !settings.guided;
  $("source").hidden = !settings.attends;
  for (const name of settings.models) $("model").append(new Option(name, name));
  $("models").hidden = !settings.models.length;
  for (let i = 0; i < settings.examples; i++) {
    const picture = Object.assign(document.createElement("img"), { src: `examples/${i}`, alt: `Example ${i + 1}` });
    const button = document.createElement("button");
    button.append(picture);
    button.addEventListener("click", async () => open(await (await fetch(`examples/${i}`)).blob()));
    $("examples").append(button);
  }
})();
$("curl").textContent = `curl -F image=@image.png -F mask=@mask.png -F grow=0 -F blend=none ${new URL("api/fill", location)} -o filled.png`;
refresh();
