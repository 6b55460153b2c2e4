// Prepares a recording for the network of a page: channels, part, checks and corrections of `deepesi apply`.
//
// A reader returns recordings: { kind: "average" or "raw", label, channels: [{ name, ... }], bads: [name], notes: [text],
// read(channel, start, stop): samples, V } and, of an average, times (s), baseline ([from, to], s, or null) and nave (if
// known); of a raw one, length(channel) and marks: [{ onset, duration, text }], s from the first sample. Raw channels
// have a rate, Hz.
"use strict";
const recordingsFor = (demo, reference, whitener) => {
  const FEWEST_FLAT = 8; // samples from which a channel is judged to be dead
  const [OFFSET, OFFSET_ALL, OFFSET_RAW] = demo.offsets; // whitened powers: deepesi/runtime/corrections.py
  const names = channelNames(demo.names);

  /** Product of a square matrix, row by row, and data (C, T). */
  function product(matrix, data) {
    const nChannels = data.length;
    return data.map((_, i) => {
      const sum = new Float64Array(data[0].length);
      for (let j = 0; j < nChannels; j++) {
        const weight = matrix[i * nChannels + j], row = data[j];
        for (let t = 0; t < sum.length; t++) sum[t] += weight * row[t];
      }
      return sum;
    });
  }

  const mean = values => values.reduce((a, b) => a + b, 0) / values.length;
  const spread = values => {
    const middle = mean(values);
    return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / values.length);
  };
  const median = values => [...values].sort((a, b) => a - b)[values.length >> 1];

  /** Recordings in a file. */
  async function open(file) {
    const name = file.name.toLowerCase();
    if (/\.(csv|tsv|txt)$/.test(name)) return readTable(await file.text(), demo.most);
    if (/\.(edf|bdf)$/.test(name)) return readEdf(await file.arrayBuffer(), demo.units);
    if (/\.fif$/.test(name)) return readFif(await file.arrayBuffer());
    if (/\.fif\.gz$/.test(name))
      return readFif(await new Response(file.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
    throw Error("its name ends in none of .fif, .fif.gz, .edf, .bdf, .csv and .tsv. 'deepesi apply' reads more formats.");
  }

  /** Channels of the network in a recording, in their order. */
  function pick({ channels, bads }) {
    const usable = channels.filter(({ name }) => !bads.includes(name)), keys = names.keys(usable.map(({ name }) => name));
    const all = channels.map(({ name }) => name), derived = names.derivations(all);
    const found = names.keys(demo.channels).map(key => usable.filter((_, i) => keys[i] === key));
    const several = found.find(some => some.length > 1);
    if (several) throw Error(`${listed(several.map(({ name }) => name))} are one electrode. Keep one of them.`);
    const missing = demo.channels.filter((_, i) => !found[i].length);
    if (missing.length && derived.length)
      throw Error(`the channels ${listed(derived)} are derivations between two electrodes (bipolar), which cannot be turned ` +
        "into the average. Give the recording before, with every electrode against one reference.");
    if (missing.length) {
      const wanted = new Set(names.keys(missing)), bad = bads.filter((_, i) => wanted.has(names.keys(bads)[i]));
      throw Error(`the channels ${listed(missing)} are missing${bad.length ? ` (marked bad: ${listed(bad)})` : ""}; it has ` +
        `${listed(all)}. The network is prepared for the channels named below: rename them, or write the page for your ` +
        "cap (deepesi demo MODEL RECORDING).");
    }
    const picked = found.map(([channel]) => channel), against = names.referencesOf(picked.map(({ name }) => name));
    if (against.length > 1)
      throw Error(`the channels have different references (${listed(against)}), so they cannot be turned into one average. ` +
        "Give the recording with one reference.");
    return picked;
  }

  const isBad = text => text.toUpperCase().startsWith("BAD");
  const isBoundary = text => /^((edge |bad )?boundary$|new segment\/)/.test(text.trim().toLowerCase());

  /** First sample of a part of a raw recording from some time on, the sample after its last, and what is left out. */
  function part({ marks }, rate, length, from) {
    const seams = marks.filter(({ text }) => isBoundary(text)).map(({ onset }) => Math.round(onset * rate));
    const bad = marks.filter(({ text }) => isBad(text) && !isBoundary(text));
    const spans = bad.map(({ onset, duration }) => [onset, onset + duration].map(time => Math.round(time * rate)));
    let start = Math.max(0, Math.round(from * rate));
    for (const [begin, end] of spans.sort((a, b) => a[0] - b[0])) if (begin <= start && start < end) start = end;
    if (start >= length)
      throw Error(`from ${from} s on it has no good sample: it ends at ${(length / rate).toFixed(1)} s` +
        `${bad.length ? `, or is annotated ${listed([...new Set(bad.map(({ text }) => text))])}` : ""}.`);
    const ends = [...spans.map(([begin]) => begin), ...seams].filter(end => end > start);
    const texts = bad.length ? [`what is annotated ${listed([...new Set(bad.map(({ text }) => text))])} is left out`] : [];
    return [start, Math.min(length, start + demo.most, ...ends), texts];
  }

  /** Name, times (s), data (C, T) (V) and notes of a recording; of a raw one the part from some time on. */
  function prepare(recording, name, from) {
    const { kind, label, bads, notes, read } = recording, channels = pick(recording), said = [...notes];
    const rates = [...new Set(channels.map(({ rate }) => rate))];
    if (rates.length > 1)
      throw Error(`its channels have different sampling rates (${listed(rates)} Hz). Resample them to one.`);
    let { times } = recording, start = 0, stop = times?.length;
    if (kind === "raw") {
      const length = recording.length(channels[0]);
      let excluded;
      [start, stop, excluded] = part(recording, rates[0], length, from);
      times = Array.from({ length: stop - start }, (_, t) => (start + t) / rates[0]);
      said.push(`${times[0].toFixed(2)} to ${times[times.length - 1].toFixed(2)} of ${(length / rates[0]).toFixed(1)} s`, ...excluded);
    }
    if (times.length > demo.most)
      throw Error(`${times.length} samples, expected 1 to ${demo.most}. Cut the part of interest out.`);
    const { nave } = recording, averageOf = n => `an average of ${n} ${n === 1 ? "trial" : "trials"}`;
    if (nave !== undefined && demo.nave !== null && Math.abs(nave - demo.nave) > 1e-6 * demo.nave)
      throw Error(`it is ${kind === "raw" ? "a raw recording" : averageOf(nave)}, the page is for ` +
        `${averageOf(demo.nave)}: its noise is another. Write the page for this recording (deepesi demo MODEL RECORDING).`);
    let data = channels.map(channel => read(channel, start, stop));
    check(data);
    data = correct(recording, times, data, said);
    if (bads.length) said.push(`bad, left out: ${listed(bads)}`);
    const extra = recording.channels.filter(channel => !channels.includes(channel) && !bads.includes(channel.name));
    const without = extra.length ? ` (left out: ${listed(extra.map(channel => channel.name))})` : "";
    return { name: name + (label ? `, ${label}` : "") + without, times, data, said };
  }

  function check(data) {
    const broken = demo.channels.filter((_, c) => !data[c].every(Number.isFinite));
    if (broken.length) throw Error(`the channels ${listed(broken)} have samples that are NaN or infinite. Cut them out.`);
    const flat = data.map(row => row.every(value => value === row[0]));
    const dead = demo.channels.filter((_, c) => flat[c]), shifted = data.some((row, c) => flat[c] && row[0] !== 0);
    if (data[0].length >= FEWEST_FLAT && (dead.length > 1 || shifted)) // one that is zero may be the reference
      throw Error(`the channels ${listed(dead)} are constant. Use a recording in which all channels were measured.`);
    checkUnit(data);
  }

  function checkUnit(data) {
    const [low, high] = demo.amplitude, nTimes = data[0].length;
    const centred = product(reference, data).map(row => {
      const middle = nTimes > 1 ? mean(row) : 0;
      return row.map(value => value - middle);
    });
    const deviation = spread(Float64Array.from(centred.flatMap(row => [...row])));
    if (deviation > low && deviation < high) return;
    const middle = Array.from({ length: nTimes }, (_, t) => median(data.map(row => row[t])));
    const own = data.map(row => spread(row.map((value, t) => value - middle[t])));
    if (deviation >= high && median(own) > low && median(own) < high)
      throw Error(`the channels ${listed(demo.channels.filter((_, c) => own[c] >= high))} are much larger than the others. ` +
        "Are they in another unit, or no EEG?");
    throw Error(`the values have a standard deviation of ${deviation.toPrecision(2)}; EEG in volts has ${low} to ` +
      `${high}. They look like ${deviation > low ? "microvolts (multiply by 1e-6)" : "kilovolts, or a flat recording"}.`);
  }

  /** Data without the offsets of channels, as in deepesi/runtime/corrections.py; `said` gets what was done. */
  function correct({ kind, baseline }, times, data, said) {
    const meanOf = (from, to) => data.map(row => Float64Array.of(mean(row.subarray(from, to))));
    const power = values => product(whitener, values).reduce((sum, [value]) => sum + value ** 2, 0) / demo.rank;
    const less = values => data.map((row, c) => row.map(value => value - values[c][0]));
    if (kind === "raw") {
      const offsets = meanOf(0, times.length);
      if (!(power(offsets) > OFFSET_RAW)) return data;
      said.push("offsets of channels were subtracted");
      return less(offsets);
    }
    if (baseline !== null) return data;
    const before = times.filter(time => time < 0).length;
    const share = power(meanOf(0, before ? Math.max(2, Math.round(before / 3)) : times.length));
    if (before && share > OFFSET) {
      said.push(`its first samples have ${share.toFixed(0)} times the power of the noise: the mean before 0 ms was subtracted`);
      return less(meanOf(0, times.filter(time => time <= 1e-6).length));
    }
    if (!before && share > OFFSET_ALL)
      throw Error(`the mean over its time has ${share.toFixed(0)} times the power of the noise, as offsets of channels have, and ` +
        "there is no time before 0 to subtract. Subtract a baseline, or high-pass filter it.");
    return data;
  }

  return { open, prepare, product };
};
