/* Drive a model that predicts video.

   A drive is a list of frames that is never changed: to go on is to make a longer list, to undo is to go on
   from an earlier frame, to fork is to keep the list and go on from one of its frames. A frame is
   {picture, pixels, state, position, action, simulated}: an ImageData, the same as floats [C,H,W] in [0,1],
   what the model goes on from, the hand's place in metres, the action that led here, and, if there is a
   simulator, its {picture, pixels, state}. */
"use strict";

const about = JSON.parse(text("about"));
const recordings = JSON.parse(text("scenes-data"));
const [CHANNELS, HEIGHT, WIDTH] = about.frame;
const FIRST = about.n_past - 1;  // the frame from which the model goes on
const HEAT = [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]];
const HEAT_LIMIT = 0.5;
const FUTURES = 4;
const SETTLE = 3;  // frames in which the hand reaches another height
const PAST_END = 3;  // frames for which the last one stays when a video is repeated
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const app = {
  mode: "drive",
  scene: null,  // {name, frames, actions, positions}
  drive: [],
  kept: null,  // the drive that a fork began from
  forked: FIRST,
  replay: null,  // the recorded actions, imagined
  futures: [],
  time: FIRST,
  lift: 0,
  close: 0,
  fps: about.fps[1],
  target: null,  // where the pointer holds the hand to, in metres
  keys: new Set(),
  pending: 0,  // frames to go on without a hand that moves
  driving: false,
  playing: null,
  version: 0,  // of the scene and what is computed of it; what older versions ask for is dropped
  draws: 0,
  rate: 0,
};

// ------------------------------------------------------------------------------------------------ the page

function byId(name) { return document.getElementById(name); }
function text(name) { return byId(name).textContent; }

function element(kind, parent, words, className) {
  const made = document.createElement(kind);
  if (words) made.textContent = words;
  if (className) made.className = className;
  parent.append(made);
  return made;
}

// ------------------------------------------------------------------------------------------------ the model

/* {observe(scene), step(state, condition, seed)}: promises of the state after what is seen of a scene, and of the
   {pixels, state} after a step; without a seed it takes the mean of the latent. */
let model = null;
const simulator = about.simulated ? served("simulator") : null;

/* Return the engine of this name on the server, which keeps its states: here they are numbers. */
function served(name) {
  return {
    observe: async scene => ({ state: scene.number }),
    async step(state, condition, seed) {
      const asked = fetch(name, { method: "POST", body: JSON.stringify({ ...state, condition, seed }) });
      const answer = await asked.catch(() => { throw new Error("svg-play does not answer. Has it been ended?"); });
      if (!answer.ok) throw new Error(await answer.text());
      const number = Number(answer.headers.get("State"));
      return { pixels: new Float32Array(await answer.arrayBuffer()), state: { state: number } };
    },
  };
}

/* Return the model in a worker, which keeps nothing: states are the tensors themselves. */
async function startModel(onProgress) {
  const ask = await startWorker(onProgress);
  const size = about.latent.reduce((product, number) => product * number, 1);
  return {
    observe(scene) {
      const seen = scene.frames.slice(0, about.n_past);
      const pixels = seen.flatMap(frame => Array.from(frame.pixels));
      const conditions = seen.flatMap((_, time) => condition(scene.actions[time], scene.positions[time]));
      return ask("observe", {
        frames: tensor(pixels, [1, about.n_past, CHANNELS, HEIGHT, WIDTH]),
        conditions: tensor(conditions, [1, about.n_past, ...about.conditions]),
      });
    },
    async step(state, condition, seed) {
      const noise = seed === undefined ? new Float32Array(size) : normal(size, seed);
      const found = await ask("step", {
        ...state,
        noise: tensor(noise, [1, ...about.latent]),
        conditions: tensor(condition, [1, ...about.conditions]),
      });
      const changed = Object.fromEntries(about.changed.map(name => [name, found[`next_${name}`]]));
      return { pixels: found.predicted.data, state: { ...state, ...changed } };
    },
  };
}

/* Return a function `ask(task, values)`, which gives a promise of the worker's answer. */
async function startWorker(onProgress) {
  const [runtime, glue] = await Promise.all([unpackText("runtime"), unpackText("glue")]);
  const script = new Blob([runtime, "\n", text("worker")], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(script));
  const waiting = new Map();
  let count = 0;
  worker.onmessage = ({ data }) => {
    if ("progress" in data) return onProgress(data.progress, data.words);
    const { resolve, reject } = waiting.get(data.number);
    waiting.delete(data.number);
    if ("error" in data) reject(new Error(data.error)); else resolve(data.answer);
  };
  worker.onerror = event => waiting.forEach(({ reject }) => reject(new Error(event.message)));
  const ask = (task, values) => new Promise((resolve, reject) => {
    waiting.set(++count, { resolve, reject });
    worker.postMessage({ number: count, task, values });
  });
  const blocks = Object.fromEntries(["wasm", "weights", "observe", "step"].map(name => [name, text(name)]));
  await ask("start", { glue, ...blocks });
  return ask;
}

async function unpackText(name) {
  const bytes = Uint8Array.from(atob(text(name)), letter => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function tensor(data, dims) { return { type: "float32", data: Float32Array.from(data), dims }; }

/* Return the frames that are seen at the start of a scene, the last one with the model's state. */
async function observe(scene) {
  const [state, simulated] = await Promise.all([model.observe(scene), simulator && simulator.observe(scene)]);
  return scene.frames.slice(0, about.n_past).map((frame, time) => ({
    ...frame, action: scene.actions[time - 1] || null, position: scene.positions[time],
    state: time === FIRST ? state : null, simulated: simulator && { ...frame, state: simulated },
  }));
}

/* Return the frame after `frame` and the action [dx, dy, lift, close], with what the simulator then shows. */
async function carryOut(frame, action) {
  const [imagined, simulated] = await Promise.all([imagine(frame, action), simulator && simulate(frame, action)]);
  return { ...imagined, simulated };
}

async function imagine(frame, action, seed) {
  const { pixels, state } = await model.step(frame.state, condition(action, frame.position), seed);
  return { picture: asPicture(pixels), pixels, state, action, position: moved(frame.position, action) };
}

async function simulate({ simulated, position }, action) {
  const { pixels, state } = await simulator.step(simulated.state, condition(action, position));
  return { picture: asPicture(pixels), pixels, state };
}

function condition(action, position) { return [...action, ...position].slice(0, about.conditions[0]); }

/* Return where an action takes the hand: as `svg.integrate_positions` does. */
function moved([x, y, z], [dx, dy, lift]) {
  const { low, step, speed } = about.height;
  return [x + dx, y + dy, z + clamp(low + step * lift - z, speed)];
}

function clamp(number, limit) { return Math.max(-limit, Math.min(limit, number)); }

function asPicture(pixels) {
  const image = new ImageData(WIDTH, HEIGHT), size = WIDTH * HEIGHT;
  for (let place = 0; place < size; place++) {
    for (let channel = 0; channel < 3; channel++)
      image.data[4 * place + channel] = Math.round(255 * pixels[channel * size + place]);
    image.data[4 * place + 3] = 255;
  }
  return image;
}

function asPixels(picture) {
  const size = WIDTH * HEIGHT;
  return Float32Array.from({ length: 3 * size },
                           (_, place) => picture.data[4 * (place % size) + Math.floor(place / size)] / 255);
}

/* Return numbers of a normal distribution, the same for the same seed. */
function normal(count, seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (((mixed ^ (mixed >>> 14)) >>> 0) + 0.5) / 2 ** 32;
  };
  return Float32Array.from({ length: count },
                           () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()));
}

// ------------------------------------------------------------------------------------------------ the camera

/* Return the pixel at which the camera sees a place in metres. */
function project(place) {
  const [right, down, depth] = about.camera.map(row => row[0] * place[0] + row[1] * place[1] + row[2] * place[2] + row[3]);
  return [right / depth, down / depth];
}

/* Return the place [x, y] at height z that the camera sees at a pixel. */
function unproject([right, down], z) {
  const [across, along, depth] = about.camera;
  const row = (axis, pixel) => axis.map((number, column) => number - pixel * depth[column]);
  const [a, b] = [row(across, right), row(along, down)];
  const [p, q] = [-(a[2] * z + a[3]), -(b[2] * z + b[3])];
  const scale = a[0] * b[1] - a[1] * b[0];
  return [(p * b[1] - a[1] * q) / scale, (a[0] * q - p * b[0]) / scale];
}

function withinReach([x, y]) { return [clamp(x, about.reach[0]), clamp(y, about.reach[1])]; }

// ------------------------------------------------------------------------------------------------ driving

function canDrive() { return app.mode === "drive" || app.mode === "fork"; }
function now() { return app.drive[Math.min(app.time, app.drive.length - 1)]; }
function isReady() { return Boolean(app.drive[FIRST] && app.drive[FIRST].state); }
function wantsOn() { return app.target !== null || app.keys.size > 0 || app.pending > 0; }

/* Return the action that brings the hand nearer to the pointer, or the way that the arrow keys say. */
function nextAction(frame) {
  const [x, y] = frame.position;
  let way = [0, 0];
  if (app.keys.size) {
    const sum = [0, 1].map(axis => [...app.keys].reduce((total, key) => total + ARROWS[key][axis], 0));
    way = sum.map(number => number * about.step);
  } else if (app.target) {
    way = [app.target[0] - x, app.target[1] - y];
  }
  const length = Math.hypot(...way);
  const share = length > about.step ? about.step / length : 1;
  const [toX, toY] = withinReach([x + share * way[0], y + share * way[1]]);
  return [toX - x, toY - y, app.lift, app.close];
}

/* Go on, frame by frame, for as long as pointer, keys or buttons ask for it. */
async function drive() {
  if (app.driving || !isReady() || !canDrive()) return;
  app.driving = true;
  stopPlaying();
  byId("hint").hidden = true;
  while (wantsOn() && isReady() && canDrive() && app.time < about.longest) {
    app.time = Math.max(app.time, FIRST);  // from what was seen before it nothing can be imagined
    app.forked = Math.min(app.forked, app.time);
    const began = performance.now(), version = app.version, before = now(), time = app.time;
    app.pending = Math.max(0, app.pending - 1);
    const frame = await attempt(carryOut(before, nextAction(before)));
    if (!frame) break;
    if (version !== app.version || time !== app.time) continue;
    app.drive = [...app.drive.slice(0, time + 1), frame];
    app.time += 1;
    refresh();
    await pause(1000 / app.fps - (performance.now() - began));
    measureRate(performance.now() - began);
  }
  app.driving = false;
  if (app.time >= about.longest) say(`After ${about.longest} frames the film is full. Undo, or start over.`);
  refresh();
}

function pause(milliseconds) {
  return milliseconds > 0 ? new Promise(resolve => setTimeout(resolve, milliseconds)) : Promise.resolve();
}

function measureRate(milliseconds) {
  app.rate = app.rate ? 0.8 * app.rate + 200 / milliseconds : 1000 / milliseconds;
}

/* Return what a promise gives; say what went wrong if it fails. */
async function attempt(promise) {
  try {
    return await promise;
  } catch (error) {
    say(`The model stopped: ${error.message}`);
    return null;
  }
}

function setLift(lift) {
  app.lift = Math.max(0, Math.min(about.height.most, lift));
  app.pending = SETTLE;
  showControls();
  drive();
}

function toggleClose() {
  app.close = 1 - app.close;
  app.pending = SETTLE - 1;
  showControls();
  drive();
}

function waitFrame() {
  app.pending = Math.max(app.pending, 1);
  drive();
}

// ------------------------------------------------------------------------------------------------ scenes

/* Return a scene with its frames unpacked. */
async function openScene({ name, frames, across, sprite, actions, positions }) {
  const image = new Image();
  image.src = sprite;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const pictures = Array.from({ length: frames }, (_, time) =>
    context.getImageData(time % across * WIDTH, Math.floor(time / across) * HEIGHT, WIDTH, HEIGHT));
  return { name, actions, positions, frames: pictures.map(picture => ({ picture, pixels: asPixels(picture) })) };
}

async function chooseScene(number) {
  const version = ++app.version;
  app.scene = { ...await openScene(recordings[number]), number };
  if (version !== app.version) return;
  Object.assign(app, { drive: app.scene.frames.slice(0, about.n_past), replay: null, futures: [], kept: null,
                       time: FIRST, lift: 0, close: 0, pending: 0, target: null });
  document.querySelectorAll("#scenes button").forEach((button, place) =>
    button.setAttribute("aria-pressed", String(place === number)));
  setMode("drive");
  await observeScene(version);
}

/* Give the first frames of the scene the model's state; before it has started, nothing happens. */
async function observeScene(version) {
  if (!model) return;
  const seen = await attempt(observe(app.scene));
  if (!seen || version !== app.version) return;
  app.drive = seen;
  refresh();
}

function reset() {
  stopPlaying();
  app.version += 1;
  Object.assign(app, { drive: app.drive.slice(0, about.n_past), time: FIRST, lift: 0, close: 0, pending: 0 });
  setMode("drive");
}

function undo() {
  if (canDrive()) show(Math.max(app.mode === "fork" ? app.forked : FIRST, app.time - 1));
}

// ------------------------------------------------------------------------------------------------ four ways to look

const MODES = {
  drive: {
    lead: simulator ? "Imagined from two pictures and what you do; beside it the simulator, under the same actions."
      : "Every frame is imagined, from two pictures and what you do. Time stands still when you let go.",
    panels: () => [livePanel("imagined", app.drive),
                   ...simulatedFilms(app.drive).flatMap(film => [truePanel("simulated", film),
                                                                 heatPanel("difference", [app.drive, film])])],
    rows: () => [{ label: "your film", frames: app.drive }, ...simulatedRows(app.drive)],
  },
  fork: {
    lead: "Same beginning, two endings. Choose a frame of the first film below, then drive differently.",
    panels: () => {
      const imagined = [scoredPanel("first film", app.kept), livePanel("what if", app.drive),
                        heatPanel("difference", [app.kept, app.drive])];
      const films = simulatedFilms(app.kept, app.drive);
      if (!films.length) return imagined;
      const simulated = [...films.map(film => truePanel("simulated", film)), heatPanel("difference", films)];
      return imagined.flatMap((panel, place) => [panel, simulated[place]]);
    },
    rows: () => [{ label: "first film: choose where to fork", frames: app.kept, onChoose: forkAt },
                 { label: "what if", frames: app.drive }, ...simulatedRows(app.drive)],
  },
  truth: {
    lead: "A recording, and what the network imagines of it from its first two frames and the hand's actions.",
    panels: () => [truePanel("what happened", app.scene.frames),
                   { ...stillPanel("imagined", app.replay), note: psnrNote },
                   heatPanel("difference", [app.scene.frames, app.replay])],
    rows: () => [{ label: "what happened", frames: app.scene.frames },
                 { label: "imagined", frames: app.replay }],
  },
  futures: {
    lead: "The same actions, four draws of chance: what the network holds for possible.",
    panels: () => [...app.futures.map((frames, number) => stillPanel(`future ${number + 1}`, frames)),
                   heatPanel("where they differ", app.futures)],
    rows: () => [{ label: "future 1", frames: app.futures[0] || [] }],
  },
};

function stillPanel(label, frames) { return { label, frames: frames || [] }; }
function scoredPanel(label, frames) { return { label, frames, note: time => scoreNote(frames[time], time) }; }
function livePanel(label, frames) { return { ...scoredPanel(label, frames), isLive: true }; }
function truePanel(label, frames) { return { label, frames, isTrue: true }; }
function heatPanel(label, videos) { return { label, videos, isHeat: true }; }

/* Return what the simulator shows in each of the drives; nothing without a simulator. */
function simulatedFilms(...drives) {
  return simulator ? drives.map(frames => frames.map(frame => frame.simulated || frame)) : [];
}

function simulatedRows(drive) { return simulatedFilms(drive).map(frames => ({ label: "simulated", frames })); }

function scoreNote({ pixels, simulated }, time) {
  return simulated && time > FIRST ? `${psnr(pixels, simulated.pixels).toFixed(1)} dB PSNR` : "";
}

function setMode(name) {
  stopPlaying();
  if (model) say("");
  if (name !== "fork") app.kept = null;
  if (name !== "drive") byId("hint").hidden = true;
  app.mode = name;
  app.target = null;
  document.querySelectorAll("#modes button").forEach(button =>
    button.setAttribute("aria-pressed", String(button.dataset.mode === name)));
  byId("lead").textContent = MODES[name].lead;
  app.time = Math.min(app.time, lastTime());
  byId("stage").className = name;
  showControls();
  refresh();
}

async function enter(name) {
  if (name === app.mode || !isReady()) return;
  if (name === "drive") setMode("drive");
  if (name === "fork") await startFork();
  if (name === "truth") await startTruth();
  if (name === "futures") await startFutures();
}

/* Keep the drive, or the recorded one if nothing was driven, and go on from the frame that is shown. */
async function startFork() {
  const isDriven = app.drive.length > about.n_past;
  if (!isDriven) say("Imagining the recorded actions, to be the first film");
  const from = isDriven ? app.drive : await replayed();
  say("");
  if (!from) return;
  app.kept = from;
  app.mode = "fork";
  forkAt(app.time < from.length - 1 ? app.time : FIRST);
  setMode("fork");
}

function forkAt(time) {
  app.version += 1;
  app.forked = Math.max(FIRST, Math.min(time, app.kept.length - 1));
  app.drive = app.kept.slice(0, app.forked + 1);
  [app.lift, app.close] = app.kept[app.forked].action ? app.kept[app.forked].action.slice(2) : [0, 0];
  app.pending = 0;
  show(app.forked);
  showControls();
}

/* Return the frames that the recorded actions lead to, each shown as soon as it is there. */
async function replayed() {
  if (app.replay && app.replay.length === app.scene.frames.length) return app.replay;
  let frames = app.replay = app.drive.slice(0, about.n_past);
  for (const action of app.scene.actions.slice(FIRST, -1)) {
    const frame = await attempt(carryOut(frames[frames.length - 1], action));
    if (!frame || app.replay !== frames) return null;  // another scene, or the same once more
    frames = app.replay = [...frames, frame];
    refresh();
  }
  return frames;
}

async function startTruth() {
  app.replay = app.replay || app.drive.slice(0, about.n_past);
  setMode("truth");
  show(FIRST);
  if (!calm.matches) play();
  await replayed();
}

/* Draw the latents of the four futures anew. They have the actions of the drive, or the recorded ones. */
async function startFutures() {
  const actions = app.drive.length > about.n_past ? app.drive.slice(about.n_past).map(frame => frame.action)
    : app.scene.actions.slice(FIRST, -1);
  let futures = app.futures = Array.from({ length: FUTURES }, () => app.drive.slice(0, about.n_past));
  app.draws += 1;
  setMode("futures");
  show(FIRST);
  if (!calm.matches) play();
  for (const [time, action] of actions.entries()) {
    for (let number = 0; number < FUTURES; number++) {
      const seed = 1e6 * app.draws + 1e3 * number + time;
      const frames = futures[number];
      const frame = await attempt(imagine(frames[frames.length - 1], action, seed));
      if (!frame || app.futures !== futures) return;  // another scene, or drawn anew
      futures = app.futures = futures.map((others, place) => place === number ? [...frames, frame] : others);
    }
    refresh();
  }
}

function psnrNote(time) {
  const scores = app.replay.slice(about.n_past, time + 1)
    .map((frame, place) => psnr(frame.pixels, app.scene.frames[about.n_past + place].pixels));
  if (!scores.length || time >= app.replay.length) return "";
  const mean = scores.reduce((total, score) => total + score, 0) / scores.length;
  return `${scores[scores.length - 1].toFixed(1)} dB PSNR, mean ${mean.toFixed(1)}`;
}

function psnr(found, expected) {
  let total = 0;
  for (let place = 0; place < found.length; place++) total += (found[place] - expected[place]) ** 2;
  return -10 * Math.log10(total / found.length);
}

// ------------------------------------------------------------------------------------------------ playing back

function lastTime() {
  return Math.max(...MODES[app.mode].rows().map(row => row.frames.length)) - 1;
}

function show(time) {
  app.time = Math.max(0, Math.min(time, lastTime()));
  refresh();
}

function play() {
  if (app.time >= lastTime()) show(canDrive() ? 0 : FIRST);
  let rest = 0;
  const next = () => {
    if (app.time < lastTime()) {
      rest = 0;
      show(app.time + 1);
    } else if (canDrive()) {
      return stopPlaying();
    } else if (++rest > PAST_END) {
      show(FIRST);
    }
    app.playing = setTimeout(next, 1000 / app.fps);
  };
  app.playing = setTimeout(next, 1000 / app.fps);
  showControls();
}

function stopPlaying() {
  if (app.playing === null) return;
  clearTimeout(app.playing);
  app.playing = null;
  showControls();
}

function togglePlay() {
  if (app.playing === null) play(); else stopPlaying();
}

// ------------------------------------------------------------------------------------------------ drawing

let isDue = false;
const scratch = document.createElement("canvas");
[scratch.width, scratch.height] = [WIDTH, HEIGHT];

function refresh() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    draw();
  });
}

function draw() {
  const panels = MODES[app.mode].panels(), boxes = panelBoxes(panels);
  panels.forEach((panel, place) => drawPanel(panel, boxes[place]));
  const last = lastTime();
  const slider = byId("frame");
  [slider.max, slider.value] = [last, app.time];
  const seen = app.time < about.n_past;
  byId("now").textContent = `frame ${app.time} of ${last}${seen ? ", seen" : ""}`;
  byId("undo").disabled = app.time <= (app.mode === "fork" ? app.forked : FIRST);
  byId("play").disabled = last <= FIRST;
  byId("rate").textContent = app.rate && canDrive() ? `now ${app.rate.toFixed(0)}` : "";
  drawStrips(MODES[app.mode].rows());
}

/* Return the elements of the panels; they are made anew only if their number changes. */
function panelBoxes(panels) {
  const stage = byId("stage");
  if (stage.children.length !== panels.length) {
    stage.replaceChildren();
    panels.forEach(panel => {
      const box = element("figure", stage);
      element("figcaption", box);
      const canvas = element("canvas", box);
      canvas.tabIndex = panel.isLive ? 0 : -1;
      element("p", box, "", "note");
      listen(canvas);
    });
  }
  return Array.from(stage.children);
}

function drawPanel(panel, box) {
  const [caption, canvas, note] = box.children;
  const isOver = !panel.isHeat && app.time >= panel.frames.length;
  const frame = panel.isHeat ? null : panel.frames[isOver ? panel.frames.length - 1 : app.time];
  const picture = panel.isHeat ? heat(panel.videos.map(video => video[app.time])) : frame && frame.picture;
  box.className = panel.isHeat ? "heat" : panel.isTrue || app.time < about.n_past ? "given" : "predicted";
  box.classList.toggle("live", Boolean(panel.isLive));
  box.classList.toggle("over", isOver);
  caption.textContent = panel.label;
  canvas.setAttribute("aria-label", panel.isLive ? `${panel.label}: drag the hand, or use the arrow keys` : panel.label);
  canvas.setAttribute("role", panel.isLive ? "application" : "img");
  if (panel.isHeat) showScale(note);
  else note.textContent = isOver ? `ends with frame ${panel.frames.length - 1}` : panel.note ? panel.note(app.time) : "";
  fit(canvas);
  const context = canvas.getContext("2d");
  if (!picture) {
    context.clearRect(0, 0, canvas.width, canvas.height);
    return;
  }
  scratch.getContext("2d").putImageData(picture, 0, 0);
  context.imageSmoothingEnabled = !panel.isHeat;
  context.imageSmoothingQuality = "high";
  context.drawImage(scratch, 0, 0, canvas.width, canvas.height);
  if (panel.isLive && frame.position) drawHand(context, frame);
}

/* Give a canvas as many pixels as the screen has for it. */
function fit(canvas) {
  const size = Math.round(canvas.clientWidth * devicePixelRatio);
  if (canvas.width !== size) canvas.width = size;
  const height = Math.round(size * HEIGHT / WIDTH);
  if (canvas.height !== height) canvas.height = height;
}

function drawHand(context, frame) {
  const scale = context.canvas.width / WIDTH;
  const at = place => project(place).map(number => (number + 0.5) * scale);
  const [x, y] = at(frame.position);
  ring(context, x, y, 3.2 * scale);
  if (!app.target) return;
  const [toX, toY] = at([...app.target, frame.position[2]]);
  stroke(context, () => {
    context.moveTo(toX - 2 * scale, toY);
    context.lineTo(toX + 2 * scale, toY);
    context.moveTo(toX, toY - 2 * scale);
    context.lineTo(toX, toY + 2 * scale);
  });
}

function ring(context, x, y, radius) {
  stroke(context, () => context.arc(x, y, radius, 0, 2 * Math.PI));
}

/* Draw a path in white on black, which shows on any picture. */
function stroke(context, path) {
  const width = Math.max(1.5, context.canvas.width / 220);
  for (const [colour, more] of [["#000a", 2.2], ["#fff", 1]]) {
    context.beginPath();
    path();
    context.lineWidth = more * width;
    context.strokeStyle = colour;
    context.stroke();
  }
}

/* Return how far pictures are apart, mean over the colours, as a picture; null unless all are there. */
function heat(frames) {
  if (!frames.length || frames.some(frame => !frame)) return null;
  const image = new ImageData(WIDTH, HEIGHT), size = WIDTH * HEIGHT;
  for (let place = 0; place < size; place++) {
    let total = 0;
    for (let channel = 0; channel < CHANNELS; channel++) {
      const values = frames.map(frame => frame.pixels[channel * size + place]);
      total += Math.max(...values) - Math.min(...values);
    }
    image.data.set([...heatColour(total / CHANNELS / HEAT_LIMIT), 255], 4 * place);
  }
  return image;
}

function heatColour(share) {
  const place = Math.min(share, 1) * (HEAT.length - 1), low = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[low].map((number, channel) => Math.round(number + (place - low) * (HEAT[low + 1][channel] - number)));
}

function showScale(note) {
  if (note.children.length) return;
  note.replaceChildren();
  element("span", note, "same");
  element("i", note, "", "scale");
  element("span", note, `${HEAT_LIMIT * 100} % apart`);
}

// ------------------------------------------------------------------------------------------------ the film strip

function drawStrips(rows) {
  const strips = byId("strips");
  while (strips.children.length > rows.length) strips.lastChild.remove();
  while (strips.children.length < rows.length) {
    const row = element("div", strips, "", "strip");
    element("span", row, "", "words");
    element("div", row, "", "frames");
  }
  rows.forEach((row, place) => drawStrip(strips.children[place], row));
}

function drawStrip(strip, { label, frames, onChoose }) {
  const [words, box] = strip.children;
  words.textContent = label;
  while (box.children.length > frames.length) box.lastChild.remove();
  while (box.children.length < frames.length) addThumb(box);
  frames.forEach((frame, time) => {
    const thumb = box.children[time], canvas = thumb.firstChild;
    thumb.onclick = () => { stopPlaying(); (onChoose || show)(time); };
    if (thumb.picture !== frame.picture) canvas.getContext("2d").putImageData(frame.picture, 0, 0);
    thumb.picture = frame.picture;
    thumb.className = time < about.n_past ? "given" : "";
    if (time === app.time) thumb.setAttribute("aria-current", "true"); else thumb.removeAttribute("aria-current");
  });
  const current = box.children[app.time];
  if (current && box.shown !== current) box.scrollLeft = current.offsetLeft - (box.clientWidth - current.offsetWidth) / 2;
  box.shown = current;
}

function addThumb(box) {
  const thumb = element("button", box);
  thumb.type = "button";
  thumb.tabIndex = -1;  // the slider is for the keyboard
  thumb.setAttribute("aria-label", `frame ${box.children.length - 1}`);
  const canvas = element("canvas", thumb);
  [canvas.width, canvas.height] = [WIDTH, HEIGHT];
}

// ------------------------------------------------------------------------------------------------ input

function listen(canvas) {
  const hold = event => {
    const box = canvas.getBoundingClientRect();
    const pixel = [(event.clientX - box.left) / box.width * WIDTH - 0.5,
                   (event.clientY - box.top) / box.height * HEIGHT - 0.5];
    app.target = withinReach(unproject(pixel, now().position[2]));
  };
  const isLive = () => canvas.parentNode.classList.contains("live") && isReady();
  canvas.addEventListener("pointerdown", event => {
    if (!isLive() || event.button > 0) return;
    canvas.setPointerCapture(event.pointerId);
    hold(event);
    drive();
  });
  canvas.addEventListener("pointermove", event => { if (app.target && isLive()) hold(event); });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
    canvas.addEventListener(end, () => { app.target = null; refresh(); });
}

const KEYS = {
  " ": togglePlay,
  "c": toggleClose,
  "x": waitFrame,
  "z": undo,
  "Backspace": undo,
  "r": reset,
  "d": () => enter("drive"),
  "f": () => enter("fork"),
  "t": () => enter("truth"),
  "s": () => (app.mode === "futures" ? startFutures() : enter("futures")),
  ",": () => { stopPlaying(); show(app.time - 1); },
  ".": () => { stopPlaying(); show(app.time + 1); },
  "i": () => byId("card").showModal(),
};

function onKey(event) {
  const on = event.target.tagName;
  if (event.altKey || event.ctrlKey || event.metaKey || on === "SELECT" || byId("card").open) return;
  if (event.key in ARROWS) {
    if (on === "INPUT") return;  // the slider has arrow keys of its own
    event.preventDefault();
    return onArrow(event.key);
  }
  if (event.key === " " && (on === "BUTTON" || on === "SUMMARY")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const digit = "0123456789".indexOf(key);
  if (digit >= 0 && digit <= about.height.most && key.length === 1 && canDrive()) setLift(digit);
  else if (key in KEYS) { event.preventDefault(); KEYS[key](); }
}

function onArrow(key) {
  if (canDrive()) {
    app.keys.add(key);
    drive();
  } else if (ARROWS[key][0]) {
    stopPlaying();
    show(app.time + ARROWS[key][0]);
  }
}

function showControls() {
  byId("play").textContent = app.playing === null ? "Play" : "Pause";
  byId("close").setAttribute("aria-pressed", String(app.close === 1));
  byId("close").textContent = app.close ? "Fingers closed" : "Fingers open";
  document.querySelectorAll("#lift button").forEach(button =>
    button.setAttribute("aria-pressed", String(Number(button.dataset.lift) === app.lift)));
  document.querySelectorAll("[data-for]").forEach(part => {
    part.hidden = !part.dataset.for.split(" ").includes(app.mode);
  });
}

function say(words) {
  byId("status").textContent = words;
  byId("status").hidden = !words;
}

// ------------------------------------------------------------------------------------------------ start

function addScenes() {
  recordings.forEach((recording, number) => {
    const button = element("button", byId("scenes"));
    button.type = "button";
    button.setAttribute("aria-label", `scene ${number + 1}`);
    const canvas = element("canvas", button);
    [canvas.width, canvas.height] = [WIDTH, HEIGHT];
    const image = new Image();
    image.onload = () => canvas.getContext("2d").drawImage(image, 0, 0);
    image.src = recording.sprite;
    button.addEventListener("click", () => chooseScene(number));
  });
}

function addListeners() {
  document.querySelectorAll("#modes button").forEach(button =>
    button.addEventListener("click", () => enter(button.dataset.mode)));
  document.querySelectorAll("#lift button").forEach(button =>
    button.addEventListener("click", () => setLift(Number(button.dataset.lift))));
  const actions = { play: togglePlay, close: toggleClose, undo, reset, draw: startFutures, wait: waitFrame };
  for (const [name, action] of Object.entries(actions)) byId(name).addEventListener("click", action);
  byId("speed").addEventListener("change", event => { app.fps = Number(event.target.value); });
  byId("frame").addEventListener("input", event => { stopPlaying(); show(Number(event.target.value)); });
  byId("info").addEventListener("click", () => byId("card").showModal());
  if (!about.served)
    byId("notices-box").addEventListener("toggle", async () => {
      byId("notices-text").textContent = await unpackText("notices");
    });
  document.addEventListener("keydown", onKey);
  document.addEventListener("keyup", event => app.keys.delete(event.key));
  window.addEventListener("blur", () => app.keys.clear());
  window.addEventListener("resize", refresh);
}

/* Return why this browser cannot run the model, or nothing. */
function obstacle() {
  if (about.served) return "";
  if (typeof WebAssembly !== "object") return "WebAssembly is missing or switched off in this browser";
  if (typeof DecompressionStream !== "function") return "this browser is too old to unpack the model";
  if (typeof Worker !== "function") return "this browser has no web workers";
  return "";
}

async function start() {
  addScenes();
  addListeners();
  await chooseScene(0);
  if (document.readyState === "loading")  // the model comes at the end of the file
    await new Promise(resolve => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
  const reason = obstacle();
  if (reason) return fail(`The model cannot run here: ${reason}. A current Firefox or Chrome can.`);
  try {
    model = about.served ? served("model") : await startModel(showProgress);
  } catch (error) {
    return fail(`The model does not start in this browser: ${error.message}`);
  }
  await observeScene(app.version);
  byId("loading").hidden = true;
  byId("hint").hidden = false;
}

function showProgress(share, words) {
  byId("progress").value = share;
  byId("loading-words").textContent = words;
}

function fail(words) {
  byId("loading").hidden = true;
  say(words);
}

/* All that the page knows, and a promise that is kept when the model runs: for tests. */
window.svgPlay = { app, ready: start() };
