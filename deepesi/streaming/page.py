"""A small web page with live estimates, at a local address only."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from numpy.typing import NDArray

from deepesi.physics.atlas import Parcels

Array = NDArray[np.float64]

#: Duration on the page, s, and number of points per second.
SHOWN, RATE = 10.0, 20.0
#: Number of parcels on the page: the strongest ones now.
N_DRAWN = 8

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>deepesi, live</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 1.5rem auto; max-width: 860px; color: #222 }
h1 { font-size: 1.2rem } canvas { width: 100%; height: 420px } #state { color: #666 }
</style>
<h1>The strongest parcels now, RMS moment of the last <span id="shown">0</span> s</h1>
<p id="state">waiting for samples</p><canvas id="c"></canvas>
<script>
const [canvas, state, shown] = ["c", "state", "shown"].map(id => document.getElementById(id));
async function draw() {
  try {
    const now = await (await fetch("now")).json();
    state.textContent = now.state; shown.textContent = now.seconds;
    const scale = devicePixelRatio, w = canvas.clientWidth, h = canvas.clientHeight;
    canvas.width = w * scale; canvas.height = h * scale;
    const g = canvas.getContext("2d"); g.scale(scale, scale); g.font = "13px system-ui";
    const n = now.parcels.length, row = h / Math.max(n, 1);
    const top = Math.max(1e-12, ...now.parcels.flatMap(r => r.nAm));
    now.parcels.forEach((r, i) => {
      const y = (i + 1) * row - 6; g.strokeStyle = "#c0392b"; g.fillStyle = "#222"; g.beginPath();
      r.nAm.forEach((v, k) => {
        const x = 190 + (w - 280) * k / Math.max(r.nAm.length - 1, 1);
        const z = y - (row - 12) * v / top; k ? g.lineTo(x, z) : g.moveTo(x, z);
      });
      g.stroke(); g.fillText(r.name, 4, y);
      g.fillText(r.nAm.at(-1).toFixed(2) + " nA m", w - 82, y);
    });
  } catch { state.textContent = "deepesi has stopped"; }
  setTimeout(draw, 200);
}
draw();
</script></html>
"""


class LivePage:
    """Serves the page and its data; a context manager.

    Args:
        parcels: Parcels to show.
        port: Port; 0: any free port.

    """

    def __init__(self, parcels: Parcels, port: int = 0) -> None:
        self.parcels, self.state = parcels, "waiting for samples"
        self.points = np.zeros((len(parcels.names), 0))
        self.times = np.zeros(0)
        self.lock = threading.Lock()
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/now":
                    self._answer("application/json", json.dumps(page.now()))
                elif self.path == "/":
                    self._answer("text/html; charset=utf-8", PAGE)
                else:
                    self.send_error(404)

            def _answer(self, kind: str, text: str) -> None:
                content = text.encode()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.server.server_address[1]}/"

    def __enter__(self) -> "LivePage":
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def show(self, times: Array, time_courses: Array, state: str) -> None:
        """Store points of the newest samples, about twenty per second."""
        with self.lock:
            self.state = state
            if self.times.size and times[-1] - self.times[-1] < 1 / RATE:
                return
            kept = slice(-int(SHOWN * RATE), None)
            self.times = np.append(self.times, times[-1])[kept]
            self.points = np.concatenate([self.points, time_courses[:, -1:]], axis=1)[:, kept]

    def now(self) -> dict[str, object]:
        """Content of the page: the strongest parcels, strongest first, in nA m."""
        with self.lock:
            points, state, times = self.points, self.state, self.times
        if not points.shape[1]:
            return {"state": state, "seconds": 0, "parcels": []}
        order = np.argsort(-points[:, -1])[:N_DRAWN]
        return {
            "state": state,
            "seconds": round(times[-1] - times[0], 1),
            "parcels": [
                {"name": self.parcels.names[i], "nAm": (1e9 * points[i]).round(3).tolist()}
                for i in order
            ],
        }
