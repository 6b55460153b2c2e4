// Reads EDF, EDF+ and BDF. A reader returns recordings: see `recording.js`.
"use strict";
const readEdf = (buffer, units) => {
  const bytes = new Uint8Array(buffer), isBdf = bytes[0] === 255, width = isBdf ? 3 : 2;
  const damaged = what => Error(`${what}. It is damaged, or no ${isBdf ? "BDF" : "EDF"} file.`);
  if (bytes.length < 256) throw damaged("the file is shorter than a header");

  /** Text of a header: ASCII, but some makers write the microvolt sign in another encoding. */
  function text(from, length) {
    const part = bytes.subarray(from, from + length);
    let decoded;
    try {
      decoded = new TextDecoder("utf-8", { fatal: true }).decode(part);
    } catch {
      decoded = String.fromCharCode(...part);
    }
    return decoded.replace(/^[ \0]+|[ \0]+$/g, "");
  }

  function number(from, length, what) {
    const value = Number(text(from, length).replace(",", "."));
    if (text(from, length) === "" || !Number.isFinite(value)) throw damaged(`${what} is no number in its header`);
    return value;
  }

  const nChannels = number(252, 4, "the number of channels"), seconds = number(244, 8, "the duration of a record");
  if (!(nChannels >= 1 && nChannels <= 4096) || bytes.length < 256 * (nChannels + 1) || !(seconds > 0))
    throw damaged(`its header names ${nChannels} channels and records of ${seconds} s`);
  let at = 256;
  const column = (length, read) => {
    const from = at;
    at += length * nChannels;
    return Array.from({ length: nChannels }, (_, c) => read(from + c * length, length));
  };
  const words = (from, length) => text(from, length), values = what => (from, length) => number(from, length, what);
  const labels = column(16, words);
  column(80, words);
  const stated = column(8, words);
  const [low, high] = [column(8, values("a physical limit")), column(8, values("a physical limit"))];
  const [least, most] = [column(8, values("a digital limit")), column(8, values("a digital limit"))];
  column(80, words);
  const perRecord = column(8, values("the number of samples"));
  const offsets = perRecord.map((_, c) => perRecord.slice(0, c).reduce((a, b) => a + b, 0) * width);
  const size = width * perRecord.reduce((a, b) => a + b, 0), begin = 256 * (nChannels + 1);
  const nRecords = Math.floor((bytes.length - begin) / size), promised = number(236, 8, "the number of records");
  if (nRecords < 1) throw damaged("it ends before the first record");
  const notes = promised > nRecords ? [`the file ends after ${nRecords} of ${promised} records`] : [];

  const view = new DataView(buffer);
  function digital(place) {
    if (!isBdf) return view.getInt16(place, true);
    return bytes[place] + 256 * bytes[place + 1] + 65536 * view.getInt8(place + 2);
  }

  const isText = labels.map(label => ["EDF Annotations", "BDF Annotations"].includes(label));
  const isStatus = label => /^(status|trigger)$/i.test(label);
  const marks = annotations();
  if (isText.some(Boolean)) notes.push(`${marks.length} annotations`);

  /** Annotations: lists of time, duration and texts. */
  function annotations() {
    const found = [], starts = [];
    for (let record = 0; record < nRecords; record++)
      for (const c of isText.keys()) {
        if (!isText[c]) continue;
        const from = begin + record * size + offsets[c], part = bytes.subarray(from, from + perRecord[c] * width);
        const lists = new TextDecoder("utf-8").decode(part).split("\0").filter(list => /^[+-]\d/.test(list));
        for (const [place, list] of lists.entries()) {
          const [when, ...texts] = list.split("\x14");
          const [onset, duration] = when.split("\x15").map(Number);
          if (place === 0 && c === isText.indexOf(true)) starts.push(onset);
          for (const words of texts.filter(Boolean)) found.push({ onset, duration: duration || 0, text: words });
        }
      }
    const gap = starts.findIndex((start, record) => Math.abs(start - starts[0] - record * seconds) > 1e-3);
    if (gap > 0)
      throw Error(`the recording has gaps (EDF+D): record ${gap + 1} begins at ${starts[gap]} s. Save the part of ` +
        "interest as a recording without gaps.");
    return found.map(mark => ({ ...mark, onset: mark.onset - (starts[0] ?? 0) }));
  }

  const channels = labels.flatMap((label, c) => (isText[c] || isStatus(label) ? [] : [{ name: label, row: c }]));

  /** Samples of one channel, V. */
  function read({ name, row }, start, stop) {
    const factor = units[stated[row].toLowerCase()];
    if (factor === undefined)
      throw Error(`the file names ${stated[row] ? `the unit "${stated[row]}"` : "no unit"} for ${name}, expected V, mV, ` +
        "uV or nV. 'deepesi apply --unit uV' takes such a file.");
    const step = (high[row] - low[row]) / (most[row] - least[row]);
    if (!Number.isFinite(step) || step === 0) throw damaged(`the limits of ${name} in its header are equal`);
    const n = perRecord[row], values = new Float64Array(stop - start);
    for (let t = start; t < stop; t++) {
      const place = begin + Math.floor(t / n) * size + offsets[row] + (t % n) * width;
      values[t - start] = factor * (digital(place) * step + (low[row] - least[row] * step));
    }
    return values;
  }

  return [{
    kind: "raw", label: "", nave: 1, channels: channels.map(channel => ({ ...channel, rate: perRecord[channel.row] / seconds })),
    bads: [], marks, notes, read, length: ({ row }) => perRecord[row] * nRecords,
  }];
};
