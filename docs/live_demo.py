"""The page of the site in which a network runs; ONNX Runtime Web comes from npm, not from here."""

from pathlib import Path

from deepesi.cli.main import main

WEB = Path(__file__).parents[1] / "deepesi/viz/web"
RUNTIME = WEB / "node_modules/onnxruntime-web"
#: Electrodes that most recordings have; a recording with more of them is taken, too.
OPTIONS = ("convdip", "--montage", "10-20-19")
WITHOUT = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>The network in your browser</title>
<p>This copy of the site was built without ONNX Runtime Web. Run <code>npm ci</code> in
<code>deepesi/viz/web</code> and build it again, or write the page yourself:
<code>deepesi demo</code>.</p>
</html>
"""


def write(folder: Path, runtime: Path = RUNTIME) -> Path:
    """Write ``live.html`` of the site; without the runtime, a page that says how to get it."""
    page = folder / "live.html"
    if runtime.is_dir():
        main(["demo", *OPTIONS, "--runtime", str(runtime), "--out", str(page)])
    else:
        page.write_text(WITHOUT, encoding="utf-8")
    return page
