// Decoding of the data of a page, written by deepesi/viz/viewer.py.

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
const as = (Type, text) => new Type(bytes(text).buffer);

/** A recording and estimates on a mesh; maps are bytes, square roots of shares of their maximum. */
export function decode(raw, mesh) {
  const nSources = raw.n_sources, nTimes = raw.times.length;
  const maps = raw.maps.map(map => ({ ...map, values: as(Uint8Array, map.values) }));
  const outlines = raw.outlines.map(({ name, sources }) => ({ name, bits: as(Uint8Array, sources) }));
  const nBytes = Math.ceil(nSources / 8);
  return {
    ...raw,
    nSources,
    nTimes,
    positions: as(Int16Array, mesh.positions), // (2, N, 3), 10 µm
    faces: as(Uint16Array, mesh.faces),
    sulci: as(Uint8Array, mesh.sulci),
    index: as(Uint16Array, mesh.index),
    weight: as(Uint8Array, mesh.weight),
    parcelOf: as(Int16Array, raw.parcel_of),
    mni: raw.mni && as(Int16Array, raw.mni),
    colours: as(Uint8Array, raw.colours),
    potentials: as(Int16Array, raw.potentials), // (T, C)
    scalp: as(Int16Array, raw.scalp), // (P, C)
    scalpPixels: as(Uint16Array, raw.scalp_pixels),
    outlines,
    maps,
    /** Value of a map at a sample and source. */
    value: (map, sample, source) =>
      maps[map].maximum * (maps[map].values[sample * nSources + source] / 255) ** 2,
    /** Number of the map of standard deviations of a map; -1: none. */
    stdOf: map => raw.std_of[map] ?? -1,
    /** Number of the map that a map has the standard deviations of, or the map itself. */
    estimateOf: map => (map < raw.std_of.length ? map : raw.std_of.indexOf(map)),
    /** Number of the line of a map: its own by name, else the first one of no map; -1: none. */
    lineOf(map) {
      const belongs = line => maps.findIndex(({ name }) => line.name.startsWith(`${name}: `));
      const owners = outlines.map(belongs), own = owners.indexOf(this.estimateOf(map));
      return own < 0 ? owners.indexOf(-1) : own;
    },
    /** Whether a source is inside an outline at a sample. */
    inside: (outline, sample, source) =>
      (outlines[outline].bits[sample * nBytes + (source >> 3)] >> (7 - (source & 7))) & 1,
    strongest(map, sample) {
      const from = sample * nSources, { values } = maps[map];
      let best = 0;
      for (let s = 1; s < nSources; s++) if (values[from + s] > values[from + best]) best = s;
      return best;
    },
    /** Value with the strongest colour: that of a sample, or of all where it is negative. */
    limit(map, sample) {
      return sample < 0
        ? maps[map].maximum : this.value(map, sample, this.strongest(map, sample)) || 1e-9;
    },
    /** Hemisphere, parcel and position of a source, in words. */
    place(source) {
      const words = [source < nSources / 2 ? "left hemisphere" : "right hemisphere"];
      if (this.parcelOf[source] >= 0) words.push(raw.parcels[this.parcelOf[source]]);
      if (this.mni && this.mni[3 * source] > -32768) words.push(`MNI (${[0, 1, 2].map(k => this.mni[3 * source + k]).join(", ")}) mm`);
      return words.join(", ");
    },
  };
}
