// Page of `deepesi demo`: an exported network on recordings, by ONNX Runtime Web; nothing is sent.
// The page is written by deepesi/viz/demo.py, which puts the other files here before this one. Data are rows of
// channels, V; estimates A m.
"use strict";
(async () => {
  const AT_ONCE = 8; // windows computed together
  const part = name => document.querySelector(`#demo [data-part=${name}]`);
  const viewer = document.querySelector(".viewer");
  const demo = JSON.parse(document.querySelector("script[data-numbers=demo]").textContent);
  const TYPES = { float32: Float32Array, float64: Float64Array, int64: BigInt64Array, uint8: Uint8Array };

  /** Array that Python compressed (`packed`). */
  async function unpack({ dtype, values }) {
    const bytes = Uint8Array.from(atob(values), letter => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new TYPES[dtype](await new Response(stream).arrayBuffer());
  }

  const rowsOf = (values, n) => Array.from({ length: n }, (_, c) =>
    values.subarray((c * values.length) / n, ((c + 1) * values.length) / n));

  // ------------------------------------------------------------------ the network

  /** First samples of windows with half overlap, and their length: deepesi/runtime/windows.py. */
  function windowsOf(nTimes) {
    const length = Math.min(demo.longest ?? nTimes, nTimes), starts = [];
    for (let start = 0; start <= nTimes - length; start += Math.max(1, length >> 1)) starts.push(start);
    if (starts[starts.length - 1] + length < nTimes) starts.push(nTimes - length);
    return [starts, length];
  }

  /** Estimates by kind (D, T) of data (C, T) of any reference, and what they took. */
  async function estimate(data) {
    const referenced = recordings.product(reference, data), nChannels = data.length, nTimes = data[0].length;
    const [starts, length] = windowsOf(nTimes);
    const weight = Array.from({ length }, (_, t) => Math.sin((Math.PI * (t + 0.5)) / length) ** 2);
    const total = new Float64Array(nTimes), sums = {};
    let spent = 0;
    for (let first = 0; first < starts.length; first += AT_ONCE) {
      const some = starts.slice(first, first + AT_ONCE);
      const batch = new Float32Array(some.length * nChannels * length);
      for (const [b, start] of some.entries())
        for (let c = 0; c < nChannels; c++)
          batch.set(referenced[c].subarray(start, start + length), (b * nChannels + c) * length);
      const began = performance.now();
      const found = await session.run(
        { ...inputs, data: new ort.Tensor("float32", batch, [some.length, nChannels, length]) },
        Object.values(demo.outputs));
      spent += performance.now() - began;
      for (const [kind, output] of Object.entries(demo.outputs)) {
        const { data: values, dims: [, nDipoles] } = found[output];
        sums[kind] ??= new Float64Array(nDipoles * nTimes);
        for (const [b, start] of some.entries())
          for (let d = 0; d < nDipoles; d++)
            for (let t = 0; t < length; t++)
              sums[kind][d * nTimes + start + t] += weight[t] * values[(b * nDipoles + d) * length + t];
      }
      for (const start of some) for (let t = 0; t < length; t++) total[start + t] += weight[t];
    }
    for (const values of Object.values(sums))
      for (let i = 0; i < values.length; i++) values[i] /= total[i % nTimes];
    if (Object.values(sums).some(values => !values.every(Number.isFinite)))
      throw Error("the network gave NaN or infinite moments. It cannot take this recording.");
    return { estimates: sums, referenced, spent, nWindows: starts.length, length };
  }

  // ------------------------------------------------------------------ the viewer

  function text(values) {
    const bytes = new Uint8Array(values.buffer);
    let letters = "";
    for (let i = 0; i < bytes.length; i += 32768) letters += String.fromCharCode(...bytes.subarray(i, i + 32768));
    return btoa(letters);
  }

  /** Map of the viewer: magnitudes, nA m, as bytes, sample after sample. */
  function mapOf(name, moments, nTimes) {
    const nSources = moments.length / nTimes / demo.n_orient, values = new Float64Array(nSources * nTimes);
    for (let s = 0; s < nSources; s++)
      for (let t = 0; t < nTimes; t++) {
        let square = 0;
        for (let o = 0; o < demo.n_orient; o++) square += moments[(s * demo.n_orient + o) * nTimes + t] ** 2;
        values[t * nSources + s] = 1e9 * Math.sqrt(square);
      }
    const maximum = Math.max(values.reduce((a, b) => Math.max(a, b), 0), 1e-30);
    const shares = Uint8Array.from(values, value => Math.round(255 * Math.sqrt(value / maximum)));
    return { name, maximum, values: text(shares) };
  }

  /** Sample of most whitened power in the window of the peak, as 'deepesi apply' finds it. */
  function peakOf(times, data) {
    const whitened = recordings.product(whitener, data), [from, to] = demo.window;
    const power = times.map((_, t) => whitened.reduce((sum, row) => sum + row[t] ** 2, 0));
    const inside = times.map((_, t) => t).filter(t => times[t] >= from && (to === null || times[t] <= to));
    return (inside.length ? inside : [...times.keys()]).reduce((a, b) => (power[b] > power[a] ? b : a));
  }

  function show({ times, data }, { estimates, referenced }) {
    const nTimes = times.length;
    let highest = 1e-30;
    for (const row of referenced) for (const value of row) highest = Math.max(highest, Math.abs(value));
    const potentials = new Int16Array(data.length * nTimes);
    for (const [c, row] of referenced.entries())
      for (let t = 0; t < nTimes; t++) potentials[t * data.length + c] = Math.round((32767 * row[t]) / highest);
    const maps = [mapOf("estimate", estimates.mean, nTimes)];
    if (estimates.std) maps.push(mapOf("estimate: standard deviation", estimates.std, nTimes));
    document.body.dataset.estimated = "true";
    viewer.dispatchEvent(new CustomEvent("recording", { detail: {
      times: times.map(time => Math.round(1e5 * time) / 100), start: peakOf(times, data), maps,
      potentials: text(potentials), potential_maximum: 1e6 * highest,
    } }));
  }

  // ------------------------------------------------------------------ the controls

  /** Recordings to choose from: functions of the start of a part (s) that give name, times, data and notes. */
  const choices = demo.examples.map(({ name, times, data }) => async () =>
    ({ name, times, data: rowsOf(await unpack(data), demo.channels.length), said: [] }));
  let last = null, opened = 0;

  function say(words, refused = false) {
    part("status").textContent = words;
    part("status").classList.toggle("refused", refused);
  }

  const enable = on => {
    for (const name of ["example", "from", "file", "save"]) part(name).disabled = !on || (name === "save" && !last);
  };

  /** Estimate what `read` gives, and show it; whether this was possible. */
  async function run(read, name) {
    enable(false);
    say(`Estimating ${name} …`);
    await new Promise(done => setTimeout(done, 20)); // lets the browser draw
    let done = false;
    try {
      const recording = await read(), result = await estimate(recording.data);
      last = { name: recording.name, times: recording.times, moments: result.estimates.mean };
      show(recording, result);
      const said = recording.said.map(note => ` ${note[0].toUpperCase()}${note.slice(1)}.`);
      say(`${recording.name}: ${recording.times.length} samples, estimated in this browser.${said.join("")}`);
      part("latency").textContent = `Latency: ${result.spent.toFixed(0)} ms on one thread, ` +
        `${(result.spent / result.nWindows).toFixed(1)} ms per window (${result.nWindows}, of ${result.length} ` +
        `sample${result.length > 1 ? "s" : ""}); the network was opened in ${(opened / 1000).toFixed(1)} s.`;
      done = true;
    } catch (error) {
      say(`${name}: ${error.message}${last ? ` Below is still ${last.name}.` : ""}`, true);
    }
    enable(true);
    return done;
  }

  /** Run a choice; the start of a part is asked for where a recording is longer than the page takes. */
  function choose(number) {
    const choice = choices[number];
    part("part").hidden = !choice.isRaw;
    return run(() => choice(Number(part("from").value)), "the recording");
  }

  async function open(file) {
    let found;
    part("from").value = 0;
    const shown = await run(async () => {
      found = await recordings.open(file);
      return recordings.prepare(found[0], file.name, 0);
    }, file.name);
    if (!shown) return;
    for (const recording of found) {
      const choice = from => recordings.prepare(recording, file.name, from), { kind, label } = recording;
      choices.push(Object.assign(choice, { isRaw: kind === "raw" }));
      part("example").add(new Option(label ? `${file.name}, ${label}` : file.name, choices.length - 1));
    }
    part("example").value = choices.length - found.length;
    part("part").hidden = found[0].kind !== "raw";
  }

  function save() {
    const { times, moments } = last, nTimes = times.length, nDipoles = moments.length / nTimes;
    const columns = Array.from({ length: nDipoles }, (_, d) => d);
    const lines = times.map((time, t) => [time, ...columns.map(d => moments[d * nTimes + t].toPrecision(7))].join(","));
    const url = URL.createObjectURL(new Blob([["time", ...columns].join(",") + "\n" + lines.join("\n") + "\n"]));
    Object.assign(document.createElement("a"), { href: url, download: "estimate.csv" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  part("example").onchange = event => {
    part("from").value = 0;
    choose(event.target.value);
  };
  part("from").onchange = () => choose(part("example").value);
  part("file").onchange = event => {
    if (event.target.files.length) open(event.target.files[0]);
    event.target.value = ""; // so that a corrected file of the same name can be chosen
  };
  part("save").onclick = save;
  const drop = part("drop");
  for (const kind of ["dragover", "dragleave", "drop"])
    drop.addEventListener(kind, event => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length && !part("file").disabled) open(event.dataTransfer.files[0]);
    });

  let ort, session, reference, whitener, recordings;
  const inputs = {};
  try {
    const began = performance.now();
    const code = URL.createObjectURL(new Blob([await unpack(demo.code)], { type: "text/javascript" }));
    ort = await import(code);
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = (await unpack(demo.wasm)).buffer;
    session = await ort.InferenceSession.create(
      await unpack(demo.model), { executionProviders: ["wasm"], logSeverityLevel: 4 });
    for (const [name, packed] of Object.entries(demo.inputs))
      inputs[name] = new ort.Tensor(packed.dtype, await unpack(packed), packed.shape);
    [reference, whitener] = [await unpack(demo.reference), await unpack(demo.whitener)];
    recordings = recordingsFor(demo, reference, whitener);
    opened = performance.now() - began;
  } catch (error) {
    say(`This browser cannot open the network (${error.message}). Use a current Chrome, Edge, Firefox or Safari.`, true);
    return;
  }
  await choose(0);
})();
