// Reads averages and raw recordings of MNE-Python and MEGIN (FIF). A reader returns recordings: see `recording.js`.
"use strict";
const readFif = buffer => {
  const B = { // blocks
    info: 101, raw: [102, 112, 119], evoked: 104, aspect: [105, 120, 151], channel: 113, file: 118, projector: 314,
    bads: 359, epochs: 373, annotations: 3810,
  };
  const T = { // tags
    start: 104, end: 105, rate: 201, channel: 203, role: 115, comment: 206, trials: 207, first: 208, aspect: 210, time: 229,
    longName: 258, buffer: 300, skip: 301, epoch: 302, names: 3507, projector: 3411, active: 3560, reference: 3567,
    from: 3568, to: 3569,
  };
  const EEG = 2, VOLT = 107, AVERAGE = 100, COILS = { 5: "bipolar derivations", 6: "a surface Laplacian" };
  const READ = { 2: [2, "getInt16"], 16: [2, "getInt16"], 3: [4, "getInt32"], 4: [4, "getFloat32"], 5: [8, "getFloat64"] };
  const MATRIX = 0x40000000, view = new DataView(buffer);
  const damaged = what => Error(`${what}. It is damaged, or no FIF file.`);

  /** Blocks of the file, each with its tags and blocks. */
  function tree() {
    const root = { kind: 0, tags: [], blocks: [] }, open = [root];
    for (let at = 0; at + 16 <= buffer.byteLength;) {
      const [kind, type, size, next] = [0, 4, 8, 12].map(k => view.getInt32(at + k));
      if (size < 0 || at + 16 + size > buffer.byteLength || (at === 0 && kind !== 100))
        throw damaged(at === 0 ? "the file does not begin as FIF files do" : "the file ends within a value");
      const here = open[open.length - 1], tag = { kind, type, size, at: at + 16 };
      if (kind === T.start) {
        const block = { kind: view.getInt32(tag.at), tags: [], blocks: [] };
        here.blocks.push(block);
        open.push(block);
      } else if (kind === T.end) {
        if (open.length > 1) open.pop();
      } else here.tags.push(tag);
      if (next < 0) break;
      at = next > 0 ? next : at + 16 + size;
      if (next > 0 && next < tag.at) throw damaged("a value points backwards");
    }
    return root;
  }

  const among = kinds => [kinds].flat();
  const all = (block, kinds) => block.blocks.flatMap(inner =>
    [...(among(kinds).includes(inner.kind) ? [inner] : []), ...all(inner, kinds)]);
  const tags = (block, kind) => block.tags.filter(tag => tag.kind === kind);
  const letters = (from, length) => String.fromCharCode(...new Uint8Array(buffer, from, length));
  const words = tag => letters(tag.at, tag.size).replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code)));
  const list = tag => words(tag).split(":").map(name => name.replaceAll("{COLON}", ":"));

  /** Numbers of a tag; of a matrix row after row. */
  function numbers(tag) {
    const kind = READ[tag.type & 0xffff];
    if (!kind) throw Error("its values are complex, or of a kind that is not read here. Give real signals.");
    const [width, read] = kind, extra = tag.type & MATRIX ? 4 * (view.getInt32(tag.at + tag.size - 4) + 1) : 0;
    return Float64Array.from({ length: (tag.size - extra) / width }, (_, i) => view[read](tag.at + i * width));
  }

  const one = (block, kind, otherwise) => {
    const [tag] = block ? tags(block, kind) : [];
    return tag ? numbers(tag)[0] : otherwise;
  };

  function channelsOf(block) {
    const longer = all(block, B.channel).map(inner => tags(inner, T.longName).map(words)[0]);
    return tags(block, T.channel).map(({ at }, row) => {
      const short = letters(at + 80, 16).split("\0")[0];
      return {
        row, short, name: longer[row] ?? short, kind: view.getInt32(at + 8), range: view.getFloat32(at + 12),
        cal: view.getFloat32(at + 16), coil: view.getInt32(at + 20), unit: view.getInt32(at + 72),
      };
    });
  }

  const root = tree(), [info] = all(root, B.info);
  if (!info) throw damaged("it holds no measurement");
  const every = channelsOf(info), rate = one(info, T.rate), nChannels = every.length;
  const eeg = every.filter(channel => channel.kind === EEG);
  if (!eeg.length) throw Error(`it has no EEG channels, only ${nChannels} of other kinds. Set their types if they are wrong.`);
  for (const [coil, what] of Object.entries(COILS)) {
    const some = eeg.filter(channel => channel.coil === Number(coil));
    if (some.length)
      throw Error(`the channels ${listed(some.map(channel => channel.name))} are ${what}, which cannot be turned into the ` +
        "average reference. Give the recording before.");
  }
  if (one(info, T.reference, 0) === 2)
    throw Error("it holds a surface Laplacian, no potentials. Give the recording before.");
  const other = eeg.filter(channel => channel.unit > 0 && channel.unit !== VOLT);
  if (other.length)
    throw Error(`the channels ${listed(other.map(channel => channel.name))} are not in volts. Set their types and units.`);
  const longNames = Object.fromEntries(every.map(channel => [channel.short, channel.name]));
  const bads = all(info, B.bads).flatMap(block => tags(block, T.names)).flatMap(list).map(name => longNames[name] ?? name);
  const projectors = all(info, B.projector).filter(item => one(item, T.projector) === 1 && one(item, T.active, 0));
  const notes = projectors.length
    ? [`${projectors.length} signal-space projectors were applied; the noise of this page is that before them`] : [];
  const channels = eeg.map(channel => ({ ...channel, rate }));

  function average(block) {
    const [aspect] = all(block, B.aspect), own = tags(block, T.channel).length ? channelsOf(block) : every;
    const label = tags(block, T.comment).map(words)[0] ?? "No comment";
    if (!aspect || one(aspect, T.aspect, AVERAGE) !== AVERAGE) return { refused: label };
    const parts = tags(aspect, T.epoch).map(numbers), values = parts.length > 1 ? parts : null;
    const n = values ? values[0].length : parts[0].length / own.length;
    const first = one(block, T.time) ?? one(block, T.first, 0) / rate;
    const [from, to] = [one(block, T.from), one(block, T.to)];
    const read = ({ row }, start, stop) =>
      (values ? values[row].slice(start, stop) : parts[0].slice(row * n + start, row * n + stop)).map(v => v * own[row].cal);
    return {
      kind: "average", label, channels, bads, notes, read, times: Array.from({ length: n }, (_, t) => first + t / rate),
      baseline: from === undefined ? null : [from, to], nave: one(aspect, T.trials, 1),
    };
  }

  function raw(block) {
    let begin = 0, at = 0, skipped = 0;
    const buffers = [], marks = [];
    for (const tag of block.tags) {
      if (tag.kind === T.first) begin = numbers(tag)[0];
      else if (tag.kind === T.skip) skipped = numbers(tag)[0];
      else if (tag.kind === T.buffer) {
        const [width, method] = READ[tag.type] ?? [];
        if (!width) throw Error("its values are complex, or packed. Save it as real numbers with MNE-Python.");
        const n = tag.size / width / nChannels, gap = skipped * n;
        if (gap && !buffers.length) begin += gap;
        else if (gap) {
          marks.push({ onset: at / rate, duration: gap / rate, text: "BAD_ACQ_SKIP" });
          at += gap;
        }
        buffers.push({ at, n, width, method, place: tag.at });
        at += n;
        skipped = 0;
      }
    }
    const [noted] = all(root, B.annotations), first = begin / rate;
    if (noted && tags(noted, T.comment).length) {
      const [onsets, ends] = [T.from, T.to].map(kind => numbers(tags(noted, kind)[0]));
      for (const [i, text] of list(tags(noted, T.comment)[0]).entries())
        marks.push({ onset: onsets[i] - first, duration: ends[i] - onsets[i], text });
    }
    const read = ({ row, cal, range }, start, stop) => {
      const values = new Float64Array(stop - start);
      for (const { at: own, n, width, method, place } of buffers)
        for (let t = Math.max(start, own); t < Math.min(stop, own + n); t++)
          values[t - start] = cal * range * view[method](place + width * ((t - own) * nChannels + row));
      return values;
    };
    const goesOn = all(root, B.file).some(file => one(file, T.role) === 2)
      ? ["it goes on in another file, which is not read"] : [];
    return { kind: "raw", label: "", nave: 1, channels, bads, marks, notes: [...notes, ...goesOn], read, length: () => at };
  }

  if (all(root, B.epochs).length) throw Error("it holds epochs. Average them (epochs.average()), and save the average.");
  const averages = all(root, B.evoked).map(average), refused = averages.filter(found => found.refused !== undefined);
  const found = [...averages.filter(one => one.refused === undefined), ...all(root, B.raw).map(raw)];
  if (!found.length)
    throw Error(refused.length
      ? `it holds no average, only ${listed(refused.map(({ refused: name }) => name))} of another kind (standard errors?), ` +
        "whose values have no topography. Give the average."
      : "it holds no average and no raw recording.");
  for (const { refused: name } of refused) found[0].notes = [...found[0].notes, `"${name}" is no average, left out`];
  return found;
};
