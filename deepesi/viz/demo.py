"""Page that runs an exported network in the browser, in one file that loads nothing.

Its code is in ``web/demo``; the viewer shows what it computes. ONNX Runtime Web is not in the
package (14 MB): the user gets it from npm, and the page holds a compressed copy.
"""

import base64
import gzip
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.channel_names import OLD_NAMES, REFERENCES, electrode_names
from deepesi.physics.units import UNITS
from deepesi.viz.page import write_page
from deepesi.viz.viewer import View, viewer_sections

Array = NDArray[np.float64]

#: npm package, and the version that is tested.
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
#: Its code and its WebAssembly.
FILES = ("dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm")
#: Scripts of the page, in the order in which they need each other.
SCRIPTS = ("names.js", "table.js", "edf.js", "fif.js", "recording.js", "demo.js")
#: The browser lets the page run its own code and load or send nothing.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data:; form-action 'none'"
)
#: Most samples of a recording: a page is for responses, not for hours.
MAX_SAMPLES = 2000


class Runtime(NamedTuple):
    """ONNX Runtime Web: version, JavaScript and WebAssembly."""

    version: str
    code: bytes
    wasm: bytes


class Example(NamedTuple):
    """A recording on the page: name, times ``(T,)`` (s) and data ``(C, T)`` (V, any reference)."""

    name: str
    times: Array
    data: Array


@dataclass(frozen=True)
class Demo:
    """What the page runs.

    Attributes:
        model: Content of the ``.onnx`` file.
        inputs: Prepared head inputs, by name.
        outputs: Names of the outputs, by kind: ``"mean"`` and perhaps ``"std"``.
        longest: Longest window, samples; None: any.
        n_orient: Dipoles per source.
        ch_names: Channels, in order.
        amplitude: Lowest and highest plausible standard deviation, V.
        rank: Dimensions of the noise.
        nave: Trials of an average that the noise is for; None: the level is given.
        offsets: Whitened powers above which the offsets of channels are too large: of the first
            samples of an average, of one without time before 0, and of a raw recording.
        reference: Matrix ``(C, C)`` from any reference to that of the network.
        whitener: Matrix ``(C, C)`` from any reference to whitened data.
        window: Start and end of the search for the peak, s.
        examples: Recordings, at least one.
        view: View of the first example; its maps are replaced.

    """

    model: bytes
    inputs: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, str]
    longest: int | None
    n_orient: int
    ch_names: Sequence[str]
    amplitude: tuple[float, float]
    rank: int
    nave: float | None
    offsets: tuple[float, float, float]
    reference: Array
    whitener: Array
    window: Sequence[float]
    examples: Sequence[Example]
    view: View


def read_runtime(folder: Path | None) -> Runtime:
    """Read the unpacked npm package ``onnxruntime-web``.

    Raises:
        ValueError: No folder is given, or it does not hold that package.

    """
    get = f"Get it with 'npm install --prefix web {PACKAGE}@{VERSION}', then give --runtime"
    get += f" web/node_modules/{PACKAGE}."
    if folder is None:
        raise ValueError(f"the page needs ONNX Runtime Web, which is not in the package. {get}")
    missing = [name for name in ("package.json", *FILES) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"--runtime {folder}: it lacks {', '.join(missing)}, so it is not the npm package "
            f"{PACKAGE} (tested: {VERSION}). {get}"
        )
    version = json.loads((folder / "package.json").read_text(encoding="utf-8")).get("version")
    code, wasm = ((folder / name).read_bytes() for name in FILES)
    return Runtime(str(version), code, wasm)


def write_demo(
    path: Path, title: str, facts: Mapping[str, str], demo: Demo, runtime: Runtime
) -> None:
    """Write the page.

    Args:
        path: ``.html`` file.
        title: Heading.
        facts: Table at the top, texts by name.
        demo: What it runs.
        runtime: ONNX Runtime Web.

    """
    notes = ["Nothing leaves this machine: the page is one file, and its policy forbids requests."]
    ours = {"runs with": f"ONNX Runtime Web {runtime.version} (MIT License, © Microsoft)"}
    (viewer,) = viewer_sections({"Estimate": _blank(demo.view)}).values()
    sections = {
        "Run the network": _controls(demo, runtime),
        "Estimate": f"{viewer}<script>{scripts()}</script>",
    }
    write_page(path, title, {**facts, **ours}, notes, sections, POLICY)


def scripts() -> str:
    """The scripts of the page."""
    return "\n".join(_web(name) for name in SCRIPTS)


def spellings() -> dict[str, Any]:
    """Rules for channel names, the same as in `deepesi.physics.channel_names`."""
    return {"electrodes": electrode_names(), "old": OLD_NAMES, "references": REFERENCES}


def packed(values: NDArray[Any]) -> dict[str, Any]:
    """Numbers for the page, compressed, in the order of the array."""
    content = np.ascontiguousarray(values)
    compressed = gzip.compress(content.tobytes(), 9, mtime=0)
    return {
        "dtype": str(content.dtype),
        "shape": list(content.shape),
        "values": base64.b64encode(compressed).decode(),
    }


def _blank(view: View) -> View:
    """The view of two samples, without an estimate: the browser computes it."""
    few = view.every(max(1, len(view.times) // 2))
    maps, stds = (
        {name: np.zeros_like(v) for name, v in shown.items()} for shown in (few.maps, few.stds)
    )
    return replace(few, maps=maps, stds=stds)


def _controls(demo: Demo, runtime: Runtime) -> str:
    options = (
        f"<option value='{k}'>{html.escape(e.name)}</option>" for k, e in enumerate(demo.examples)
    )
    return Template(_web("demo.html")).substitute(
        examples="".join(options),
        channels=html.escape(", ".join(demo.ch_names)),
        most=MAX_SAMPLES,
        numbers=_numbers(demo, runtime),
    )


def settings(demo: Demo) -> dict[str, Any]:
    """Settings of the scripts, ready for JSON, without the network."""
    start, stop = (float(t) for t in demo.window)
    return {
        "channels": list(demo.ch_names),
        "names": spellings(),
        "units": UNITS,
        "amplitude": demo.amplitude,
        "rank": demo.rank,
        "nave": demo.nave,
        "offsets": demo.offsets,
        "longest": demo.longest,
        "most": MAX_SAMPLES,
        "n_orient": demo.n_orient,
        "window": [start, stop if np.isfinite(stop) else None],
        "outputs": dict(demo.outputs),
        "inputs": {name: packed(values) for name, values in demo.inputs.items()},
        "reference": packed(demo.reference),
        "whitener": packed(demo.whitener),
        "examples": [
            {"name": e.name, "times": e.times.tolist(), "data": packed(e.data)}
            for e in demo.examples
        ],
    }


def _numbers(demo: Demo, runtime: Runtime) -> str:
    files = {"code": runtime.code, "wasm": runtime.wasm, "model": demo.model}
    parts = {name: packed(np.frombuffer(file, np.uint8)) for name, file in files.items()}
    text = json.dumps(settings(demo) | parts, separators=(",", ":"), allow_nan=False)
    safe = text.replace("<", "\\u003c")
    return f"<script type='application/json' data-numbers='demo'>{safe}</script>"


def _web(name: str) -> str:
    return (resources.files("deepesi.viz") / "web" / "demo" / name).read_text(encoding="utf-8")
