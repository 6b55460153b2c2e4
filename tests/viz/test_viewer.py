"""The page of an estimate in a browser: what it shows, and mouse, finger and keys."""

import hashlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect
from scipy.ndimage import gaussian_filter

import deepesi.viz
from deepesi.physics.building.anatomy import read_anatomy
from deepesi.viz.viewer import LARGEST, View, fitting, viewer_sections, write_viewer
from tests.conftest import coarse

WEB = Path(deepesi.viz.__file__).parent / "web"
TIMES = np.linspace(-0.1, 0.3, 41)
N_STEPS = len(TIMES) - 1


@pytest.fixture(scope="module")
def view(template) -> View:
    """A left lateral source at 100 ms and a stronger right occipital one at 200 ms."""
    left = int(template.source_pos[:642, 0].argmin())
    right = 642 + int(template.source_pos[642:, 1].argmin())
    head = template.montage_head("biosemi32")
    time_courses = np.exp(-(((TIMES - np.array([[0.1], [0.2]])) / 0.03) ** 2))
    moments = np.array([[2e-8], [4e-8]]) * time_courses
    near = np.exp(-((1e3 * _distances(template.source_pos, [left, right]) / 15) ** 2))
    magnitudes = near @ moments
    inside = (near.max(axis=1) > 0.5)[:, None] & (magnitudes.max(axis=0) > 1e-9)
    parcels = [f"<parcel> {side}" for side in ("L", "R") for _ in range(642)]
    return View(
        TIMES,
        {"estimate": 1e9 * magnitudes},
        template.display,
        head.leadfield[:, [left, right]] @ moments,
        head.sensors.positions,
        int(magnitudes.max(axis=0).argmax()),
        {"estimate": 0.25e9 * magnitudes + 0.1},
        outlines={"90 % prediction set": inside},
        parcels=parcels,
        mni=template.source_mni,
    )


def _distances(positions, sources):
    return np.linalg.norm(positions[:, None] - positions[None, sources], axis=2)


@pytest.fixture(scope="module")
def fine(view, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "fine.html"
    write_viewer(path, "Visual, 40 trials", {"model": "default"}, [], {"Estimate": view})
    return path


@pytest.fixture(scope="module")
def path(view, fine) -> Path:
    """The same page on a coarse mesh, which is drawn in a fraction of the time."""
    path = fine.with_name("page.html")
    mesh = coarse(view.mesh, read_anatomy("ico1", "ico3").skull.faces)
    views = {"Estimate": replace(view, mesh=mesh)}
    write_viewer(path, "Visual, 40 trials", {"model": "default"}, [], views)
    return path


@pytest.fixture
def opened(browser, path):
    """Opens the page at a width; afterwards nothing may have gone wrong or asked for more."""
    problems, context = [], browser.new_context(offline=True)
    context.set_default_timeout(120_000)  # WebGL is slow without a graphics card

    def open_page(width=900, height=700, target=path):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.on("console", lambda m: m.type in ("error", "warning") and problems.append(m.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: r.url.startswith("file:") or problems.append(r.url))
        page.goto(target.as_uri())
        page.wait_for_selector("[data-ready=true]")
        return page

    yield open_page
    context.close()
    # swiftshader itself says that reading pixels is slow
    assert [p for p in problems if "GPU stall" not in p and "GL Driver" not in p] == []


def part(page, name):
    return page.locator(f"[data-part={name}]")


def pixels(page, name="cortex") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(part(page, name).screenshot())).convert("RGB")).astype(
        int
    )


def share(image: np.ndarray, colour: str) -> float:
    """Share of the pixels that are warm (red over blue), cyan, or grey but not white."""
    red, _, blue = image.transpose(2, 0, 1)
    found = {
        "warm": red - blue > 90,
        "cyan": (blue > 180) & (red < 90),
        "grey": (np.ptp(image, axis=2) < 12) & (red < 235),
    }
    return float(found[colour].mean())


def sample(page) -> int:
    return int(part(page, "time").input_value())


def test_page_starts_at_the_peak(opened):
    page = opened()
    assert part(page, "now").inner_text() == "200 ms"
    said = part(page, "strongest").inner_text()
    assert re.match(r"Strongest at 200 ms: right hemisphere, <parcel> R, MNI \(", said)
    assert "40.0 ± 10 nA m" in said
    image = pixels(page)
    assert 0.002 < share(image, "warm") < 0.1
    assert share(image, "cyan") > 0.0005
    assert 0.1 < share(image, "grey") < 0.8


def test_time_moves_everything(opened):
    """Slider, keys on the recording and a drag over it; maps and texts follow."""
    page = opened()
    scalp = pixels(page, "scalp")
    part(page, "time").focus()
    page.keyboard.press("ArrowLeft")
    assert sample(page) == 29
    part(page, "time").fill("20")
    assert "Strongest at 100 ms: left hemisphere" in part(page, "strongest").inner_text()
    assert (np.abs(pixels(page, "scalp") - scalp).max(axis=2) > 40).mean() > 0.02
    assert share(pixels(page), "warm") < 0.001  # seen from behind, and half as strong
    part(page, "butterfly").focus()
    for key, expected in (("Home", 0), ("ArrowRight", 1), ("PageUp", 11), ("End", N_STEPS)):
        page.keyboard.press(key)
        assert sample(page) == expected
    assert part(page, "butterfly").get_attribute("aria-valuetext") == "300 ms"
    box = part(page, "butterfly").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 14, box["y"] + 60, steps=4)
    page.mouse.up()
    assert abs(sample(page) - 20) <= 1


def test_play_and_pause(opened):
    page = opened()
    before = sample(page)
    part(page, "play").click()
    assert part(page, "play").inner_text() == "Pause"
    page.wait_for_function(
        "before => Number(document.querySelector('[data-part=time]').value) !== before", arg=before
    )
    part(page, "butterfly").focus()
    page.keyboard.press(" ")  # pauses
    assert part(page, "play").get_attribute("aria-pressed") == "false"
    stopped = sample(page)
    page.wait_for_timeout(300)
    assert sample(page) == stopped


def test_turning_by_mouse_keys_and_buttons(opened):
    page = opened()
    start = pixels(page)

    def differs():
        return (np.abs(pixels(page) - start).max(axis=2) > 30).mean() > 0.05

    box = part(page, "cortex").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 120, middle[1], steps=3)
    page.mouse.up()
    assert differs()
    part(page, "face").click()
    assert not differs()
    part(page, "cortex").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert differs()
    page.get_by_role("button", name="back").click()
    assert not differs()
    page.get_by_role("button", name="left", exact=True).click()
    assert share(pixels(page), "warm") == 0


def text_after(page, name, action):
    """Text of a part once an action gives one; a frame may be drawn after the first tries."""
    for _ in range(30):
        action()
        text = part(page, name).inner_text()
        if text:
            return text
        page.wait_for_timeout(100)
    raise AssertionError(f"{name} stays empty")


def test_source_under_the_mouse_and_a_click(opened):
    page = opened()
    page.get_by_role("button", name="left", exact=True).click()
    box = part(page, "cortex").bounding_box()
    centre = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def move():
        page.mouse.move(centre[0] + 1, centre[1])
        page.mouse.move(*centre)

    assert text_after(page, "under", move).startswith("left hemisphere, <parcel> L, MNI (")
    page.mouse.click(*centre)
    selected = part(page, "selected")
    expect(selected).to_contain_text("Selected source: left hemisphere")
    page.get_by_role("button", name="back").click()
    image = pixels(page)
    y, x = np.argwhere(image[..., 0] - image[..., 2] > 90).mean(axis=0)
    box = part(page, "cortex").bounding_box()  # a click may have scrolled the page
    page.mouse.click(box["x"] + x, box["y"] + y)
    expect(selected).to_contain_text("Selected source: right hemisphere")
    page.mouse.move(box["x"] + 3, box["y"] + 3)
    expect(part(page, "under")).to_have_text("")


def test_threshold_map_scale_and_line(opened):
    page = opened()
    warm = share(pixels(page), "warm")
    part(page, "threshold").fill("80")
    assert part(page, "share").inner_text() == "80 %"
    assert share(pixels(page), "warm") < 0.5 * warm
    part(page, "threshold").fill("25")
    part(page, "outline").select_option("none")
    assert share(pixels(page), "cyan") == 0
    warm = share(pixels(page), "warm")
    part(page, "map").select_option("estimate: standard deviation")
    assert share(pixels(page), "warm") == pytest.approx(warm, rel=0.2)  # a quarter everywhere
    part(page, "side").select_option("left only")
    assert share(pixels(page), "warm") == 0
    part(page, "side").select_option("both hemispheres")
    part(page, "map").select_option("estimate")
    part(page, "time").fill("20")  # 100 ms: the left source, half as strong as the peak
    page.get_by_role("button", name="left", exact=True).click()
    fixed = share(pixels(page), "warm")
    part(page, "scale").select_option("of each sample")
    assert share(pixels(page), "warm") > 1.2 * fixed > 0


#: The cortex as it was looked at; ``pytest --freeze`` writes it anew.
PICTURE, PICTURE_WIDTH = Path(__file__).with_name("cortex.png"), 160
#: Least correlation with it. Another renderer moves edges by up to a pixel of the screen, which the
#: blur hides: shifted by one both ways, the picture is above. The nearest wrong one has .75.
ALIKE = 0.93


def small(image: np.ndarray) -> np.ndarray:
    """A picture of `PICTURE_WIDTH` pixels."""
    height = round(PICTURE_WIDTH * image.shape[0] / image.shape[1])
    resized = Image.fromarray(image.astype(np.uint8)).resize(
        (PICTURE_WIDTH, height), Image.Resampling.BOX
    )
    return np.asarray(resized)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Lower of the correlations of brightness and of red less blue, of blurred pictures."""
    parts = []
    for image in (one, other):
        red, green, blue = gaussian_filter(image.astype(float), (1.5, 1.5, 0)).transpose(2, 0, 1)
        parts.append((red + green + blue, red - blue))
    return min(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(*parts, strict=True))


def test_cortex_looks_as_the_stored_picture(opened, view, tmp_path, pytestconfig):
    page = opened()
    seen = small(pixels(page))
    if pytestconfig.getoption("--freeze"):
        Image.fromarray(seen).save(PICTURE, optimize=True)
    stored = np.asarray(Image.open(PICTURE).convert("RGB"))
    assert stored.shape == seen.shape
    assert PICTURE.stat().st_size < 30_000
    assert likeness(seen, stored) > ALIKE
    assert likeness(small(np.roll(pixels(page), 1, axis=(0, 1))), stored) > ALIKE

    def now() -> float:
        return likeness(small(pixels(page)), stored)

    wrong = {}
    part(page, "threshold").fill("90")
    wrong["threshold"] = now()
    part(page, "threshold").fill("25")
    part(page, "outline").select_option("none")
    wrong["line"] = now()
    part(page, "outline").select_option("0")
    part(page, "time").fill("20")
    wrong["time"] = now()
    part(page, "time").fill("30")
    page.get_by_role("button", name="left", exact=True).click()
    wrong["view"] = now()
    page.get_by_role("button", name="back").click()
    assert now() > ALIKE
    mesh = coarse(view.mesh, read_anatomy("ico1", "ico3").skull.faces)
    nearby = np.roll(view.maps["estimate"], 7, axis=0)  # other sources
    write_viewer(
        tmp_path / "o.html",
        "x",
        {},
        [],
        {"x": replace(view, mesh=mesh, maps={"o": nearby}, stds={})},
    )
    page = opened(target=tmp_path / "o.html")
    page.get_by_role("button", name="back").click()
    wrong["map"] = now()
    assert max(wrong.values()) < ALIKE, wrong


@pytest.mark.slow
def test_colours_are_those_of_the_pictures(opened, view, fine):
    """The same estimate drawn by matplotlib covers as much of the cortex with colour."""
    from matplotlib.figure import Figure

    from deepesi.viz.cortex import draw_cortex
    from deepesi.viz.movie import drawn

    page = opened(target=fine)
    part(page, "outline").select_option("none")
    page.get_by_role("button", name="back").click()
    part(page, "side").select_option("right only")
    seen = pixels(page)
    figure = Figure(figsize=(4, 4), dpi=100)
    values = view.maps["estimate"][:, view.peak_sample]
    draw_cortex(figure.subplots(), values, view.mesh, "right posterior", float(values.max()))
    expected = drawn(figure).astype(int)
    ratios = [share(i, "warm") / (share(i, "warm") + share(i, "grey")) for i in (seen, expected)]
    assert ratios[0] == pytest.approx(ratios[1], rel=0.3)


def test_every_control_has_a_name(opened):
    page = opened()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll(".viewer :is(canvas, button, input, select)")]
        .filter(e => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()))
        .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert part(page, "strongest").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("width", [390, 1440])
def test_cortex_is_whole_in_every_view(opened, width):
    """A margin around it is white."""
    page = opened(width)
    for name in ("left", "right", "front", "back", "top", "bottom"):
        page.get_by_role("button", name=name, exact=True).click()
        image = pixels(page)
        margin = np.concatenate([image[:3].reshape(-1, 3), image[-3:].reshape(-1, 3)])
        sides = np.concatenate([image[:, :3].reshape(-1, 3), image[:, -3:].reshape(-1, 3)])
        assert margin.min() > 240, name
        assert sides.min() > 240, name
        assert share(image, "grey") > 0.1, name


def test_page_fits_a_phone(opened):
    page = opened(390, 844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert 0.002 < share(pixels(page), "warm") < 0.1
    assert part(page, "cortex").evaluate("e => e.style.touchAction") == "pan-y"


def test_page_without_webgl_keeps_the_rest(opened, path, tmp_path):
    blind = tmp_path / "blind.html"
    off = "<script>HTMLCanvasElement.prototype.getContext = (get => function (kind, ...more) {"
    off += " return kind === '2d' ? get.call(this, kind, ...more) : null; })"
    off += "(HTMLCanvasElement.prototype.getContext); console.error = () => {};</script>"
    blind.write_text(path.read_text().replace("<head>", f"<head>{off}", 1))
    page = opened(target=blind)
    assert "shows no WebGL" in page.locator(".viewer p.note").inner_text()
    part(page, "time").fill("20")
    assert "Strongest at 100 ms: left" in part(page, "strongest").inner_text()


def test_file_loads_nothing_and_hides_no_markup(path):
    text = path.read_text()
    assert path.stat().st_size < LARGEST
    assert not re.findall(r"(?:src|href)=['\"](?!data:|#)", text)
    numbers = re.search(r"data-numbers='view'>(.*?)</script>", text, re.S)[1]
    assert "<" not in numbers
    assert json.loads(numbers)["parcels"] == ["<parcel> L", "<parcel> R"]


def long_view(view: View, n_times: int) -> View:
    often = np.arange(n_times) % len(TIMES)
    return replace(
        view,
        times=np.arange(n_times) / 1000,
        maps={name: values[:, often] for name, values in view.maps.items()},
        stds={name: values[:, often] for name, values in view.stds.items()},
        data=view.data[:, often],
        outlines={name: inside[:, often] for name, inside in view.outlines.items()},
    )


def test_too_large_a_page_says_what_to_thin_out(view, tmp_path):
    long = long_view(view, 1500)
    message = r"page of 6\.\d MB, expected at most 3 MB: 1500 samples of 1284 sources are 5\.\d MB"
    with pytest.raises(ValueError, match=f"{message}.*Thin out: fewer samples"):
        write_viewer(tmp_path / "page.html", "x", {}, [], {"x": long})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("n_times", [41, 400, 1500])
def test_samples_are_thinned_until_a_page_fits(view, n_times):
    long = replace(long_view(view, n_times), peak_sample=31)
    views, step = fitting({"x": long})
    fitted = views["x"]
    assert len(viewer_sections(views)["x"]) < LARGEST
    assert fitted.times[fitted.peak_sample] == long.times[31]
    assert np.array_equal(fitted.data[:, fitted.peak_sample], long.data[:, 31])
    assert (step == 1) == (n_times <= 400)
    if step > 1:  # as many as can be
        with pytest.raises(ValueError, match="Thin out"):
            viewer_sections({"x": long.every(step - 1)})
    below = {"x": "<p>text</p>" * 100_000}  # 1.1 MB
    views, _ = fitting({"x": long}, below)
    section = viewer_sections(views, below)["x"]
    assert below["x"] in section
    assert len(section) < LARGEST
    assert len(views["x"].times) <= len(fitted.times)


def test_several_views_of_one_mesh(opened, view, tmp_path):
    """The cortex is in the page once; one sample has no controls of time."""
    mesh = coarse(view.mesh, read_anatomy("ico1", "ico3").skull.faces)
    whole = replace(view, mesh=mesh, maps=view.maps | {"flipped": view.maps["estimate"][::-1]})
    early = replace(whole.every(len(TIMES)), unit="% <b>")
    write_viewer(tmp_path / "page.html", "x", {}, [], {"All": whole, "One": early})
    assert (tmp_path / "page.html").read_text().count("data-numbers='mesh'") == 1
    page = opened(target=tmp_path / "page.html")
    first, second = (page.locator(".viewer").nth(k) for k in (0, 1))
    assert first.locator("[data-part=play]").is_visible()
    for name in ("play", "time", "scale", "butterfly", "course"):
        assert not second.locator(f"[data-part={name}]").is_visible(), name
    said = second.locator("[data-part=strongest]").inner_text()
    assert said.startswith("Strongest: right hemisphere")
    second.locator("[data-part=map]").select_option("flipped")
    assert "left hemisphere" in second.locator("[data-part=strongest]").inner_text()
    assert second.locator("[data-part=strongest]").inner_text().endswith("40.0 % <b>")
    assert "right hemisphere" in first.locator("[data-part=strongest]").inner_text()


def test_standard_deviations_are_those_of_the_map(opened, view, tmp_path):
    """The first map has none; the others have them in their texts, and as maps to choose."""
    mesh = coarse(view.mesh, read_anatomy("ico1", "ico3").skull.faces)
    values = view.maps["estimate"]
    maps = {"target": values, "method": 0.5 * values, "unsure": 0.5 * values}
    stds = {"method": 0.1 * values, "unsure": 13.5 * values}
    both = replace(view, mesh=mesh, maps=maps, stds=stds)
    write_viewer(tmp_path / "page.html", "x", {}, [], {"Example": both})
    page = opened(target=tmp_path / "page.html")
    choice = part(page, "map")
    names = [*maps, "method: standard deviation", "unsure: standard deviation"]
    assert choice.locator("option").all_inner_texts() == names
    ends = [f"20.0 ± {std} nA m" for std in ("4.0", "540", "4.0", "540")]
    ends.insert(0, "40.0 nA m")
    for name, end in zip(names, ends, strict=True):
        choice.select_option(name)
        for text in ("strongest", "selected"):
            said = part(page, text).inner_text()
            assert said.endswith(f" mm: {end}"), (name, said)
            assert "<parcel> R" in said


def test_line_follows_the_map_until_one_is_chosen(opened, view, tmp_path):
    """Its own by name, else the first one of no map. Long names fit a phone."""
    mesh = coarse(view.mesh, read_anatomy("ico1", "ico3").skull.faces)
    long = "3 x UnrolledMatchedFilter 61 k (run outputs/matched_filter/2026-11-29_01-02-03)"
    inside = next(iter(view.outlines.values()))
    lines = {f"{long}: above 2 standard deviations": inside, "half of the maximum": inside}
    maps = {"target": view.maps["estimate"], long: view.maps["estimate"]}
    shown = replace(view, mesh=mesh, maps=maps, stds={long: maps[long]}, outlines=lines)
    write_viewer(tmp_path / "page.html", "x", {}, [], {"Example": shown})
    page = opened(390, 844, tmp_path / "page.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    choice, line = part(page, "map"), part(page, "outline")
    assert line.input_value() == "1"
    for number, own in ((1, "0"), (0, "1"), (2, "0")):
        choice.select_option(str(number))
        assert line.input_value() == own
    line.select_option("none")
    choice.select_option("target")
    assert line.input_value() == "-1"


def test_bundle_is_that_of_the_sources():
    """Otherwise run ``npm ci && npm run build`` in ``deepesi/viz/web``."""
    digest = hashlib.sha256()
    for file in sorted(WEB.glob("*.js")):
        if file.name != "viewer.min.js":
            digest.update(file.read_bytes())
    bundle = (WEB / "viewer.min.js").read_text()
    assert f"sources {digest.hexdigest()};" in bundle.split("*/")[0]
    assert "</script" not in bundle
    wanted = json.loads((WEB / "package.json").read_text())["dependencies"]["three"]
    assert f"three.js {wanted}," in bundle
    notice = (WEB.parents[2] / "NOTICE").read_text()
    assert f"three.js {wanted}" in notice
