// Reads CSV and TSV: a line per sample, time (s) and volts. A reader returns recordings: see `recording.js`.
"use strict";
const readTable = (text, most) => {
  const lines = text.replace(/^\uFEFF/, "").trim().split(/\r?\n/);
  const separator = lines[0].includes("\t") ? "\t" : ",";
  const [header, ...body] = lines.map(line =>
    line.split(separator).map(cell => cell.trim().replace(/^"(.*)"$/, "$1")));
  if (header[0] !== "time")
    throw Error(`the first line begins with "${header[0].slice(0, 30)}", expected "time", then the names of the ` +
      "channels, separated by commas or tabs.");
  const twice = header.filter((column, i) => header.indexOf(column) !== i);
  if (twice.length) throw Error(`columns repeat: ${listed(twice)}. Give every channel once.`);
  if (!body.length || body.length > most)
    throw Error(`${body.length} samples, expected 1 to ${most}. Cut the part of interest out.`);
  const numbers = body.map((cells, i) => {
    if (cells.length !== header.length)
      throw Error(`line ${i + 2} has ${cells.length} columns, the first line ${header.length}.`);
    return cells.map((cell, k) => {
      if (cell === "" || !Number.isFinite(Number(cell)))
        throw Error(`line ${i + 2}, column ${header[k]}: "${cell.slice(0, 30)}" is no number. Cut such samples out.`);
      return Number(cell);
    });
  });
  const times = numbers.map(row => row[0]), back = times.findIndex((time, i) => i > 0 && !(time > times[i - 1]));
  if (back > 0)
    throw Error(`line ${back + 2}: the time does not increase. Give one average or one epoch, in order of time.`);
  const channels = header.slice(1).map((name, column) => ({ name, column: column + 1 }));
  const read = ({ column }) => Float64Array.from(numbers, row => row[column]);
  return [{ kind: "average", label: "", channels, bads: [], notes: [], read, times, baseline: null }];
};
