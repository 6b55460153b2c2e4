// Plots on canvases: all channels over time, one source over time, a map of the scalp, a colour bar.

/** Context of a canvas of crisp lines, and its width and height in pixels of the page. */
function prepared(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas, scale = devicePixelRatio;
  canvas.width = width * scale;
  canvas.height = height * scale;
  const g = canvas.getContext("2d");
  g.scale(scale, scale);
  g.font = "12px system-ui, sans-serif";
  return [g, width, height];
}

const MARGIN = { left: 46, right: 18, top: 8, bottom: 30 };

/** Round values within a range, about n. */
function ticks(low, high, n) {
  const raw = (high - low) / n, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find(f => f * power >= raw) * power, found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9 * step; v += step) found.push(v);
  return [found, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))];
}

function axes(g, width, height, times, low, high, label) {
  const right = width - MARGIN.right, bottom = height - MARGIN.bottom;
  const last = times[times.length - 1];
  const x = t => MARGIN.left + ((t - times[0]) / (last - times[0])) * (right - MARGIN.left);
  const y = v => bottom - ((v - low) / (high - low)) * (bottom - MARGIN.top);
  g.strokeStyle = "#767676";
  g.fillStyle = "#222";
  g.lineWidth = 1;
  g.beginPath();
  g.moveTo(MARGIN.left, MARGIN.top);
  g.lineTo(MARGIN.left, bottom);
  g.lineTo(right, bottom);
  g.stroke();
  g.textAlign = "center";
  const [xs] = ticks(times[0], last, Math.max(3, width / 80));
  for (const t of xs) g.fillText(Math.round(t), x(t), bottom + 14);
  g.fillText("time (ms)", (MARGIN.left + right) / 2, height - 3);
  g.textAlign = "right";
  const [ys, digits] = ticks(low, high, 4);
  for (const v of ys) g.fillText(v.toFixed(digits), MARGIN.left - 4, y(v) + 4);
  g.save();
  g.translate(11, (MARGIN.top + bottom) / 2);
  g.rotate(-Math.PI / 2);
  g.textAlign = "center";
  g.fillText(label, 0, 0);
  g.restore();
  return [x, y];
}

function cursor(g, height, x) {
  g.strokeStyle = "#d55e00";
  g.lineWidth = 2;
  g.beginPath();
  g.moveTo(x, MARGIN.top);
  g.lineTo(x, height - MARGIN.bottom);
  g.stroke();
}

/** All channels over time, with a cursor. */
export function butterfly(canvas, data, sample) {
  const [g, width, height] = prepared(canvas), { nChannels, potentials, times } = data;
  const limit = 1.05 * data.potential_maximum, unit = data.potential_maximum / 32767;
  const [x, y] = axes(g, width, height, times, -limit, limit, "potential (µV)");
  g.strokeStyle = "rgba(30, 30, 30, 0.4)";
  g.lineWidth = 0.7;
  for (let c = 0; c < nChannels; c++) {
    g.beginPath();
    times.forEach((t, k) => g.lineTo(x(t), y(unit * potentials[k * nChannels + c])));
    g.stroke();
  }
  cursor(g, height, x(times[sample]));
}

/** A map at one source over time; with one standard deviation either side, where there is one. */
export function course(canvas, data, map, source, sample) {
  const [g, width, height] = prepared(canvas), { times } = data;
  const mean = times.map((_, k) => data.value(map, k, source)), of = data.stdOf(map);
  const std = of < 0 ? null : times.map((_, k) => data.value(of, k, source));
  const top = 1.08 * Math.max(1e-9, ...mean.map((m, k) => m + (std ? std[k] : 0)));
  const [x, y] = axes(g, width, height, times, 0, top, data.unit);
  if (std) {
    g.fillStyle = "rgba(0, 114, 178, 0.2)";
    g.beginPath();
    times.forEach((t, k) => g.lineTo(x(t), y(mean[k] + std[k])));
    for (let k = times.length - 1; k >= 0; k--) g.lineTo(x(times[k]), y(Math.max(0, mean[k] - std[k])));
    g.fill();
  }
  g.strokeStyle = "#0072b2";
  g.lineWidth = 1.6;
  g.beginPath();
  times.forEach((t, k) => g.lineTo(x(t), y(mean[k])));
  g.stroke();
  cursor(g, height, x(times[sample]));
}

/** Sample under a point of a plot over time. */
export function sampleAt(canvas, data, clientX) {
  const box = canvas.getBoundingClientRect(), { times } = data;
  const share = (clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
  return Math.round(Math.min(Math.max(share, 0), 1) * (times.length - 1));
}

/** Map of the scalp, nose up; red positive, blue negative. */
export function scalp(canvas, data, sample) {
  const [g, width, height] = prepared(canvas), { nChannels, potentials } = data;
  const n = data.scalp_size, image = new ImageData(n, n), { scalpPixels } = data;
  for (let p = 0; p < scalpPixels.length; p++) {
    let sum = 0;
    for (let c = 0; c < nChannels; c++)
      sum += data.scalp[p * nChannels + c] * potentials[sample * nChannels + c];
    const level = (sum * data.scalp_scale) / 32767; // share of the largest potential
    const colour = Math.round(255 * Math.min(Math.max(0.5 + 0.5 * level, 0), 1));
    const at = 4 * scalpPixels[p];
    for (let k = 0; k < 3; k++) image.data[at + k] = data.diverging[3 * colour + k];
    image.data[at + 3] = 255;
  }
  const small = document.createElement("canvas");
  small.width = small.height = n;
  small.getContext("2d").putImageData(image, 0, 0);
  const radius = Math.min(width, height) / 2.5, mid = [width / 2, height / 2 + radius * 0.06];
  const reach = data.scalp_reach, place = (u, v) => [mid[0] + radius * u, mid[1] - radius * v];
  g.save();
  g.beginPath();
  g.arc(...mid, radius, 0, 2 * Math.PI);
  g.clip();
  g.imageSmoothingQuality = "high";
  g.drawImage(small, ...place(-reach, reach), 2 * radius * reach, 2 * radius * reach);
  g.restore();
  g.strokeStyle = "#222";
  g.lineWidth = 1.5;
  g.beginPath();
  g.arc(...mid, radius, 0, 2 * Math.PI);
  g.moveTo(...place(-0.12, 0.993));
  g.lineTo(...place(0, 1.13));
  g.lineTo(...place(0.12, 0.993));
  for (const side of [-1, 1]) {
    g.moveTo(...place(side, 0.16));
    for (let a = 0; a <= 20; a++) {
      const angle = (Math.PI * a) / 20;
      g.lineTo(...place(side * (1 + 0.07 * Math.sin(angle)), 0.16 * Math.cos(angle)));
    }
  }
  g.stroke();
  g.fillStyle = "#111";
  for (const [u, v] of data.electrodes) {
    if (Math.hypot(u, v) > 1.02) continue; // below the circle
    g.beginPath();
    g.arc(...place(u, v), 1.5, 0, 2 * Math.PI);
    g.fill();
  }
}

/** Colours of the cortex from 0 to a limit. */
export function colourBar(canvas, data, limit, threshold) {
  const [g, width, height] = prepared(canvas), left = 8, span = width - 2 * left;
  for (let k = 0; k < span; k++) {
    const level = k / span, opacity = Math.min(Math.max((level - threshold) / 0.15, 0), 1);
    const at = 3 * Math.round(255 * (0.25 + 0.7 * level));
    const mixed = [0, 1, 2].map(c => opacity * data.colours[at + c] + (1 - opacity) * 189);
    g.fillStyle = `rgb(${mixed.map(Math.round).join(",")})`;
    g.fillRect(left + k, 4, 1.5, 12);
  }
  g.fillStyle = "#222";
  const [values, digits] = ticks(0, limit, 4);
  for (const v of values) {
    const x = left + (span * v) / limit;
    g.textAlign = x < 20 ? "left" : x > width - 20 ? "right" : "center";
    g.fillText(v.toFixed(digits), x, height - 4);
  }
}
