// Page of an estimate: cortex, scalp and recording with one time, driven by mouse, finger and keys.

import { Cortex } from "./cortex.js";
import { decode } from "./data.js";
import { butterfly, colourBar, course, sampleAt, scalp } from "./plots.js";

const FRAME = 100; // ms between frames while playing
const TURN = 0.15; // of a key, rad

/** A number with some significant digits, without an exponent from 1 on. */
function digits(value, n) {
  const text = value.toPrecision(n);
  return text.includes("e") ? String(Number(text)) : text;
}

const parsed = element => JSON.parse(element.textContent);
const meshes = [...document.querySelectorAll("script[data-numbers=mesh]")].map(parsed);

function start(root) {
  let raw = parsed(root.querySelector("script[data-numbers=view]"));
  const decoded = () => ({
    ...decode(raw, meshes[raw.mesh]),
    nChannels: raw.electrodes.length,
    diverging: Uint8Array.from(atob(raw.diverging), c => c.charCodeAt(0)),
  });
  const data = decoded(), get = name => root.querySelector(`[data-part=${name}]`);
  const state = {
    sample: raw.start, map: 0, outline: data.lineOf(0), chosen: false, threshold: 0.25,
    scale: "peak", source: data.strongest(0, raw.start), timer: null,
  };
  let cortex = null;
  try {
    cortex = new Cortex(get("cortex"), data);
  } catch {
    get("cortex").replaceWith(Object.assign(document.createElement("p"), {
      className: "note", textContent: "This browser shows no WebGL, so the cortex is missing. " +
        "The strongest source, the recording and the scalp map are below.",
    }));
  }

  const text = sample => `${Math.round(data.times[sample])} ms`;
  const estimated = () => data.estimateOf(state.map);
  function describe(source) {
    const value = digits(data.value(estimated(), state.sample, source), 3);
    const of = data.stdOf(estimated());
    const std = of < 0 ? "" : ` ± ${digits(data.value(of, state.sample, source), 2)}`;
    return `${data.place(source)}: ${value}${std} ${data.unit}`;
  }

  function show() {
    const { sample, map, outline, threshold, source, scale } = state;
    const limit = data.limit(map, { peak: raw.start, sample, all: -1 }[scale]);
    if (cortex) cortex.show(map, sample, limit, outline, threshold);
    scalp(get("scalp"), data, sample);
    if (data.nTimes > 1) {
      butterfly(get("butterfly"), data, sample);
      course(get("course"), data, estimated(), source, sample);
    }
    colourBar(get("colours"), data, limit, threshold);
    get("time").value = sample;
    get("outline").value = outline;
    get("time").setAttribute("aria-valuetext", text(sample));
    get("now").textContent = text(sample);
    for (const name of ["butterfly", "course"]) {
      get(name).setAttribute("aria-valuenow", sample);
      get(name).setAttribute("aria-valuetext", text(sample));
    }
    get("selected").textContent = `Selected source: ${describe(source)}`;
    const when = data.nTimes > 1 ? ` at ${text(sample)}` : "";
    get("strongest").textContent = `Strongest${when}: ` + describe(data.strongest(estimated(), sample));
  }

  function move(sample) {
    state.sample = Math.min(Math.max(sample, 0), data.nTimes - 1);
    show();
  }

  function play(on) {
    clearInterval(state.timer);
    state.timer = on ? setInterval(() => move((state.sample + 1) % data.nTimes), FRAME) : null;
    get("play").textContent = on ? "Pause" : "Play";
    get("play").setAttribute("aria-pressed", on);
    get("strongest").setAttribute("aria-live", on ? "off" : "polite"); // not ten times a second
  }

  get("play").onclick = () => play(state.timer === null);
  get("time").oninput = event => move(Number(event.target.value));
  get("threshold").oninput = event => {
    state.threshold = event.target.value / 100;
    get("share").textContent = `${event.target.value} %`;
    show();
  };
  get("map").onchange = event => {
    state.map = Number(event.target.value);
    if (!state.chosen) state.outline = data.lineOf(state.map); // until somebody chooses a line
    show();
  };
  get("scale").onchange = event => { state.scale = event.target.value; show(); };
  get("outline").onchange = event => {
    state.outline = Number(event.target.value);
    state.chosen = true;
    show();
  };
  get("side").onchange = event =>
    cortex && cortex.only(event.target.value === "" ? null : Number(event.target.value));
  for (const button of root.querySelectorAll("[data-view]"))
    button.onclick = () => cortex && cortex.look(button.dataset.view);
  const face = source => {
    if (!cortex) return;
    const hidden = cortex.face(source);
    get("side").value = hidden === null ? "" : String(1 - hidden);
  };
  get("face").onclick = () => face(data.strongest(state.map, state.sample));

  const steps = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10 };
  for (const name of ["butterfly", "course"]) {
    const canvas = get(name);
    const drag = event => move(sampleAt(canvas, data, event.clientX));
    canvas.onpointerdown = event => { canvas.setPointerCapture(event.pointerId); drag(event); };
    canvas.onpointermove = event => { if (event.buttons) drag(event); };
    canvas.onkeydown = event => {
      const ends = { Home: 0, End: data.nTimes - 1 };
      if (event.key in steps) move(state.sample + steps[event.key]);
      else if (event.key in ends) move(ends[event.key]);
      else return;
      event.preventDefault();
    };
  }
  root.onkeydown = event => {
    if (data.nTimes < 2 || event.key !== " " || ["BUTTON", "SELECT"].includes(event.target.tagName)) return;
    event.preventDefault();
    play(state.timer === null);
  };
  if (cortex) {
    const canvas = get("cortex"), turns = {
      ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, TURN], ArrowDown: [0, -TURN],
      "+": [0, 0, 1.1], "-": [0, 0, 1 / 1.1],
    };
    let pressed = null;
    canvas.addEventListener("keydown", event => {
      if (!(event.key in turns)) return;
      event.preventDefault();
      cortex.turn(...turns[event.key]);
    });
    canvas.addEventListener("pointermove", event => {
      const source = event.buttons ? null : cortex.sourceAt(event.clientX, event.clientY);
      get("under").textContent = source === null ? "" : describe(source);
    });
    canvas.addEventListener("pointerleave", () => { get("under").textContent = ""; });
    canvas.addEventListener("pointerdown", event => { pressed = [event.clientX, event.clientY]; });
    canvas.addEventListener("pointerup", event => {
      const { clientX: x, clientY: y } = event;
      if (!pressed || Math.hypot(x - pressed[0], y - pressed[1]) > 4) return; // it was a drag
      const source = cortex.sourceAt(x, y);
      if (source === null) return;
      state.source = source;
      show();
    });
  }
  // Another recording and its estimate, with the same head, channels and names of maps.
  root.addEventListener("recording", event => {
    play(false);
    raw = { ...raw, ...event.detail };
    Object.assign(data, decoded());
    root.dataset.kind = data.nTimes > 1 ? "time course" : "sample";
    get("time").max = data.nTimes - 1;
    for (const name of ["butterfly", "course"]) get(name).setAttribute("aria-valuemax", data.nTimes - 1);
    state.source = data.strongest(0, raw.start);
    move(raw.start);
    face(state.source);
  });
  addEventListener("resize", show);
  show();
  face(state.source);
  root.dataset.ready = "true";
}

for (const root of document.querySelectorAll(".viewer")) start(root);
