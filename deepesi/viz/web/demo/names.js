// Electrodes that channel names stand for, as in deepesi/physics/channel_names.py, from which the lists come.
"use strict";
/** Names in a sentence, at most six of them. */
const listed = names => names.slice(0, 6).join(", ") + (names.length > 6 ? ` and ${names.length - 6} more` : "");

const channelNames = ({ electrodes, old, references }) => {
  const known = new Set(electrodes);
  const newer = name => old[name] ?? name;
  const isElectrode = name => known.has(newer(name.toLowerCase()));
  const prefix = /^(?:EEG|POL)[\s_:.-]*/i;
  const separated = /^([^\s\-–_:/]+)\s*[\s\-–_:/]\s*(.+)$/;
  const glued = new RegExp(`^(.+?)(${references.join("|")})$`, "i");

  /** Electrode and reference, as far as a name contains them. */
  function split(name) {
    const text = name.trim().replace(prefix, "").replace(/[. ]+$/, "");
    const two = text.match(separated);
    if (two) return [two[1].replace(/\.+$/, ""), two[2].replace(prefix, "").replace(/-\d+$/, "").replace(/[. ]+$/, "")];
    const one = text.match(glued);
    return one && !isElectrode(text) && isElectrode(one[1]) ? [one[1], one[2]] : [text, null];
  }

  function asReference(other) {
    const plain = other.toUpperCase().replace(/[^A-Z0-9]/g, "");
    return references.includes(plain) ? plain : null;
  }

  /** The electrode that several channels, and no others, were recorded against. */
  function commonElectrode(names) {
    const others = names.map(split).filter(([name, other]) => other !== null && isElectrode(name)).map(([, other]) => other);
    const against = new Set(others.map(other => other.toLowerCase()));
    return others.length > 1 && against.size === 1 && isElectrode(others[0]) ? others[0].toLowerCase() : null;
  }

  /** Keys that are equal for two names of the same electrode. */
  function keys(names) {
    const common = commonElectrode(names);
    return names.map(name => {
      const [electrode, other] = split(name);
      const plain = other === null || asReference(other) !== null || other.toLowerCase() === common;
      return newer((plain ? electrode : name.trim()).toLowerCase());
    });
  }

  /** Names that are differences of two electrodes. */
  function derivations(names) {
    const common = commonElectrode(names);
    return names.filter(name => {
      const [electrode, other] = split(name);
      return other !== null && asReference(other) === null && other.toLowerCase() !== common &&
        isElectrode(electrode) && isElectrode(other);
    });
  }

  /** References that electrodes among the names were recorded against. */
  function referencesOf(names) {
    const found = names.map(split).filter(([name, other]) => other !== null && isElectrode(name));
    return [...new Set(found.map(([, other]) => asReference(other)).filter(other => other !== null))];
  }

  return { keys, derivations, referencesOf };
};
