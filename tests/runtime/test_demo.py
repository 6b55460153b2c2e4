"""The page that runs a network in the browser: its numbers, its refusals, and no request."""

import base64
import gzip
import json
import re
from pathlib import Path

import mne
import numpy as np
import pandas as pd
import pytest

import deepesi.viz
from deepesi.cli.main import main
from deepesi.physics.head import magnitudes
from deepesi.physics.template import template_of
from deepesi.runtime import demo
from deepesi.runtime.inverse import Inverse
from deepesi.runtime.reading.recording import ReadingOptions
from deepesi.runtime.setup import SetupOptions
from deepesi.viz.demo import FILES, POLICY, VERSION, read_runtime
from tests.conftest import make_covariance, make_evoked
from tests.viz.conftest import browser  # noqa: F401

WEB = Path(deepesi.viz.__file__).parent / "web"
MONTAGE = "biosemi32"
#: Requests for the page itself, and for what it holds.
ALLOWED = ("file:", "blob:null/")
#: A place that the page must not reach.
ELSEWHERE = "https://example.org/"


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory) -> Path:
    """A folder with the names of the npm package, for what happens before a browser."""
    folder = tmp_path_factory.mktemp("onnxruntime-web")
    (folder / "dist").mkdir()
    for name in FILES:
        (folder / name).write_bytes(b"x")
    (folder / "package.json").write_text('{"version": "9.9.9"}')
    return folder


def numbers_of(page: str) -> dict:
    return json.loads(re.search(r"data-numbers='demo'>(.*?)</script>", page, re.S)[1])


def test_page_of_simulated_responses(stand_in, tmp_path, capsys):
    """The command writes one file, which may load nothing, with all that the network needs."""
    out = tmp_path / "demo.html"
    words = ["demo", "convdip", "--montage", MONTAGE, "--runtime", str(stand_in), "--out", str(out)]
    main(words)
    assert f"wrote {out}" in capsys.readouterr().out
    page = out.read_text()
    assert f'http-equiv="Content-Security-Policy" content="{POLICY}"' in page
    assert not re.findall(r"(?:src|href)=['\"](?!data:|#)", page)
    assert "ONNX Runtime Web 9.9.9" in page
    numbers, file = numbers_of(page), Inverse.load("convdip")
    assert numbers["inputs"].keys() == {d.key for d in file.contract.head_inputs}
    assert numbers["longest"] == 1
    assert len(numbers["channels"]) == 32
    assert [e["name"].split(",")[0] for e in numbers["examples"]] == [
        f"simulated: {name}" for name, _, _ in demo.RESPONSES
    ]


def test_page_of_a_recording(stand_in, tmp_path, capsys):
    """The page has data in volts, prepared inputs, and the matrices of reference and noise."""
    evoked = make_evoked(n_times=40)
    covariance = make_covariance(evoked.info)
    covariance.save(tmp_path / "x-cov.fif")
    evoked.save(tmp_path / "x-ave.fif")
    words = ["demo", "convdip", str(tmp_path / "x-ave.fif"), "--noise-cov"]
    words += [str(tmp_path / "x-cov.fif"), "--runtime", str(stand_in), "--window", "0.01", "0.02"]
    main([*words, "--out", str(tmp_path / "demo.html")])
    assert "32 EEG channels" in capsys.readouterr().out
    numbers = numbers_of((tmp_path / "demo.html").read_text())
    (evoked,) = mne.read_evokeds(tmp_path / "x-ave.fif", verbose="error")  # as it was written
    covariance = mne.read_cov(tmp_path / "x-cov.fif", verbose="error")
    inverse = Inverse.load("convdip").for_recording(evoked, covariance)
    data = unpacked(numbers["examples"][0]["data"])
    assert np.abs(data - evoked.data).max() < 1e-6 * np.abs(evoked.data).max()
    assert numbers["examples"][0]["times"] == evoked.times.tolist()
    assert numbers["window"] == [0.01, 0.02]
    for name, values in inverse.feeds.items():
        assert np.array_equal(unpacked(numbers["inputs"][name]), values)
    assert np.allclose(unpacked(numbers["reference"]) @ data, inverse.sensors.reference(data))
    power = (unpacked(numbers["whitener"]) @ data) ** 2
    assert np.allclose(power.sum(0) / inverse.rank, inverse.power(data))


def unpacked(numbers: dict) -> np.ndarray:
    content = gzip.decompress(base64.b64decode(numbers["values"]))
    return np.frombuffer(content, numbers["dtype"]).reshape(numbers["shape"])


@pytest.mark.parametrize(
    "options", [["--noise-cov", "x-cov.fif"], ["--event", "a"], ["--window", "0", "1"]]
)
def test_options_of_a_recording_need_one(options, stand_in, tmp_path):
    words = ["demo", "convdip", "--runtime", str(stand_in), "--out", str(tmp_path / "x.html")]
    with pytest.raises(SystemExit, match="simulated ones are shown: these have the options --head"):
        main([*words, *options])


@pytest.mark.parametrize("name", ["convdip", "default"])
def test_simulated_responses_are_where_they_say(name):
    """The estimate at the peak is near the simulated source, which is a matter of the data too."""
    inverse = Inverse.load(name)
    head = inverse.template.montage_head("biosemi64")
    prepared = inverse.prepare_for(head, 1.0, "test")
    mni = template_of(inverse.template.space).source_mni
    for example, (_, place, peak) in zip(
        demo.simulated_examples(inverse.template, head, prepared), demo.RESPONSES, strict=True
    ):
        power = prepared.power(example.data)
        assert example.times[power.argmax()] == pytest.approx(peak, abs=0.03)
        assert 0.6 < power[example.times < 0].mean() < 1.4
        moments = prepared.estimate(example.data[:, [power.argmax()]])[0][:, 0]
        strongest = magnitudes(moments, head.space.n_orient).argmax()
        assert np.linalg.norm(mni[strongest] - place) < 35


def test_runtime_is_asked_for_before_anything_is_read(tmp_path, stand_in):
    with pytest.raises(ValueError, match=rf"npm install --prefix web onnxruntime-web@{VERSION}"):
        read_runtime(None)
    with pytest.raises(ValueError, match=r"lacks package\.json, dist/ort\.wasm.*Get it with 'npm"):
        read_runtime(tmp_path)
    with pytest.raises(SystemExit, match="deepesi demo: the page needs ONNX Runtime Web"):
        main(["demo", "convdip", "missing-ave.fif", "--out", str(tmp_path / "x.html")])
    with pytest.raises(SystemExit, match=r"expected a name that ends in \.html"):
        main(["demo", "convdip", "--runtime", str(stand_in), "--out", str(tmp_path / "x")])


def test_what_the_page_cannot_show_is_refused(stand_in, tmp_path):
    """Single trials, and recordings that are too long."""
    out = tmp_path / "x.html"
    evoked = make_evoked(n_times=2001)
    make_covariance(evoked.info).save(tmp_path / "x-cov.fif")
    setup = SetupOptions(tmp_path / "x-cov.fif")
    evoked.save(tmp_path / "x-ave.fif")

    def write(recording, reading):
        lines = demo.write_recording_demo(
            Path("convdip"), tmp_path / recording, out, reading, setup, (0, np.inf), stand_in
        )
        list(lines)

    with pytest.raises(ValueError, match=r"at most 2000 samples, the recording has 2001\. Crop"):
        write("x-ave.fif", ReadingOptions("0"))
    mne.io.RawArray(evoked.data, evoked.info, verbose="error").save(tmp_path / "x-raw.fif")
    with pytest.raises(ValueError, match="show an average, and the recording is none"):
        write("x-raw.fif", ReadingOptions())
    assert not out.exists()


# ---------------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def runtime() -> Path:
    folder = WEB / "node_modules" / "onnxruntime-web"
    if not (folder / FILES[1]).is_file():
        pytest.skip("no onnxruntime-web: run 'npm ci' in deepesi/viz/web")
    return folder


@pytest.fixture(scope="module")
def prepared(template):
    """Each packaged file, prepared for the head of the simulated responses."""
    found = {}

    def prepare(name):
        if name not in found:
            inverse = Inverse.load(name)
            head = inverse.template.montage_head(MONTAGE)
            ready = inverse.prepare_for(head, 1.0, "test")
            found[name] = ready, demo.simulated_examples(inverse.template, head, ready)
        return found[name]

    return prepare


@pytest.fixture
def opened(browser, runtime, tmp_path):  # noqa: F811
    """Opens the page of a model; afterwards nothing may have gone wrong or been asked for."""
    problems, context = [], browser.new_context(offline=True, accept_downloads=True)
    context.set_default_timeout(240_000)

    def open_page(name):
        out = tmp_path / "demo.html"
        setup = SetupOptions()
        list(demo.write_simulated_demo(Path(name), out, setup, MONTAGE, runtime))
        page = context.new_page()
        page.on("console", lambda m: m.type in ("error", "warning") and problems.append(m.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda r: r.url.startswith(ALLOWED) or problems.append(r.url))
        page.goto(out.as_uri())
        page.wait_for_selector("body[data-estimated]", state="attached")
        part(page, "save").click(trial=True)  # enabled: finished
        return page

    yield open_page
    context.close()
    # swiftshader itself says that reading pixels is slow; a test tries to reach elsewhere
    expected = ("GPU stall", "GL Driver", ELSEWHERE)
    assert [p for p in problems if not any(words in p for words in expected)] == []


def part(page, name):
    return page.locator(f"[data-part={name}]")


def saved(page) -> np.ndarray:
    """Estimate ``(D, T)`` that the page offers to save."""
    with page.expect_download() as download:
        part(page, "save").click()
    table = pd.read_csv(download.value.path())
    assert [*table.columns[:2]] == ["time", "0"]
    return table.to_numpy()[:, 1:].T


def give(page, text, name="mine.csv"):
    """Choose a file and wait for the answer."""
    content = {"name": name, "mimeType": "text/csv", "buffer": text.encode()}
    part(page, "file").set_input_files(content)
    return answer(page)


def answer(page):
    """What the page says when it is done; its controls are disabled before."""
    page.wait_for_selector("[data-part=file]:enabled")
    return part(page, "status").inner_text()


def choose_file(page, path):
    """Choose a file of the disk and wait for the answer."""
    part(page, "file").set_input_files(path)
    return answer(page)


def table_of(prepared, example) -> pd.DataFrame:
    return pd.DataFrame(
        {"time": example.times, **dict(zip(prepared.ch_names, example.data, strict=True))}
    )


#: Largest difference over the largest estimate.
TOLERANCE = 1e-4
#: Draws of the rounding of the data, by network. `default` chooses, for every patch, the component
#: of largest energy: where two are nearly equal, the last bit decides, in Python as in the browser.
ROUNDINGS = {"default": 6}


def settled(inverse, data, expected, n_draws):
    """Samples of an estimate ``(D, T)`` that do not hang on the last bit of the data ``(C, T)``."""
    rng, largest = np.random.default_rng(0), np.abs(expected).max()
    kept = np.ones(data.shape[1], dtype=bool)
    for _ in range(n_draws):
        rounded = data * (1 + 2.0**-24 * rng.uniform(-1, 1, data.shape))
        moved = np.abs(inverse.estimate(rounded)[0] - expected).max(0)
        kept &= moved < 0.3 * TOLERANCE * largest
    assert kept.mean() > 0.6
    return kept


def check_same(found, expected, kept=slice(None)):
    assert found.shape == expected.shape
    assert np.abs(found - expected)[:, kept].max() < TOLERANCE * np.abs(expected).max()


def check_estimate(found, inverse, name, data):
    """Compare an estimate of the page with that of Python."""
    expected = inverse.estimate(data)[0]
    check_same(found, expected, settled(inverse, data, expected, ROUNDINGS.get(name, 0)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convdip", "ensemble", "default"])
def test_numbers_are_those_of_python(opened, prepared, name):
    """An example, and a file: part of another one, in other order, with one more channel."""
    inverse, examples = prepared(name)
    page = opened(name)
    check_estimate(saved(page), inverse, name, examples[0].data)
    assert re.search(r"Latency: \d+ ms on one thread", part(page, "latency").inner_text())
    half = table_of(inverse, examples[1]).iloc[20:65]
    shuffled = half[["time", *inverse.ch_names[::-1]]].assign(ECG=0.001)
    said = give(page, shuffled.to_csv(index=False))
    assert said.startswith("mine.csv (left out: ECG): 45 samples")
    check_estimate(saved(page), inverse, name, examples[1].data[:, 20:65])


def recordings_of(prepared, examples, folder):
    """Averages of two conditions, and a raw recording in two formats, all with offsets."""
    import edfio

    inverse, offsets = prepared, np.linspace(0, 1e-4, len(prepared.ch_names))[:, None]
    info = mne.create_info(list(inverse.ch_names), demo.SFREQ, "eeg")
    info.set_montage(MONTAGE)
    first, second = (
        mne.EvokedArray(example.data + offsets, info, example.times[0], name, nave=1)
        for example, name in zip(examples, ("one", "two"), strict=False)
    )
    mne.write_evokeds(folder / "x-ave.fif", [first, second], verbose="error")
    long = np.hstack([example.data for example in examples]) + offsets
    raw = mne.io.RawArray(long, info, verbose="error")
    raw.set_annotations(mne.Annotations([0.6], [0.1], ["BAD"]))
    raw.save(folder / "x-raw.fif", verbose="error")
    signals = [
        edfio.EdfSignal(1e6 * values[:250], 250, label=f"EEG {name}", physical_dimension="uV")
        for name, values in zip(inverse.ch_names, long, strict=True)
    ]
    edfio.Edf(signals).write(folder / "x.edf")


def applied(inverse, path, folder, *options) -> np.ndarray:
    """Estimate ``(D, T)`` of `deepesi apply` for the head of the page, a raw recording's first."""
    inverse.save(folder / "head.npz")
    out = folder / f"{path.name}{''.join(options)}"
    words = ["apply", "convdip", str(path), "--prepared", str(folder / "head.npz")]
    main([*words, "--out", str(out), *options])
    stc = next(f for f in (out, Path(f"{out}-0000")) if Path(f"{f}-lh.stc").is_file())
    return mne.read_source_estimate(stc).data


@pytest.mark.slow
def test_files_give_the_numbers_of_apply(opened, prepared, tmp_path):
    """Averages and raw recordings: reader, corrections and network together."""
    inverse, examples = prepared("convdip")
    recordings_of(inverse, examples, tmp_path)
    page = opened("convdip")
    said = choose_file(page, tmp_path / "x-ave.fif")
    assert re.match(r"x-ave\.fif, one: 126 samples.* the mean before 0 ms was subtracted", said)
    assert not part(page, "part").is_visible()
    one = applied(inverse, tmp_path / "x-ave.fif", tmp_path, "--condition", "one")
    check_same(saved(page), one)
    part(page, "example").select_option("4")
    assert answer(page).startswith("x-ave.fif, two: 126 samples")
    two = applied(inverse, tmp_path / "x-ave.fif", tmp_path, "--condition", "two")
    check_same(saved(page), two)
    said = choose_file(page, tmp_path / "x.edf")
    assert re.match(
        r"x\.edf: 250 samples.* 0\.00 to 1\.00 of 1\.0 s\. Offsets of channels were", said
    )
    check_same(saved(page), applied(inverse, tmp_path / "x.edf", tmp_path, "--montage", MONTAGE))
    said = choose_file(page, tmp_path / "x-raw.fif")
    assert re.match(r"x-raw\.fif: 150 samples.* What is annotated BAD is left out", said)
    part(page, "from").fill("0.65")
    part(page, "from").press("Enter")
    assert re.match(r"x-raw\.fif: 203 samples.* 0\.70 to 1\.51 of 1\.5 s", answer(page))
    raw = mne.io.read_raw(tmp_path / "x-raw.fif", verbose="error").crop(0.7)
    raw.save(tmp_path / "part-raw.fif", verbose="error")
    check_same(saved(page), applied(inverse, tmp_path / "part-raw.fif", tmp_path))
    damaged = tmp_path / "damaged-raw.fif"
    damaged.write_bytes((tmp_path / "x-raw.fif").read_bytes()[:-900])
    assert "It is damaged, or no FIF file. Below is still x-raw.fif" in choose_file(page, damaged)


@pytest.mark.slow
def test_steps_examples_and_refusals(opened, prepared):
    """The viewer follows; a file that is not as it should be is refused, and the page goes on."""
    inverse, examples = prepared("convdip")
    page = opened("convdip")
    strongest = part(page, "strongest").inner_text()
    assert re.match(r"Strongest at (92|96|100|104|108) ms: left hemisphere, MNI", strongest)
    assert part(page, "time").get_attribute("max") == "125"
    part(page, "time").fill("0")
    assert "Strongest at -100 ms" in part(page, "strongest").inner_text()
    brightness = part(page, "scalp").evaluate(
        """canvas => { const { width, height } = canvas;
        const pixels = canvas.getContext("2d").getImageData(width / 2, height / 2, 60, 60);
        return pixels.data.reduce((a, b) => a + b) / pixels.data.length }"""
    )
    assert brightness > 120  # drawn in colours, not black
    part(page, "example").select_option("1")
    assert "right visual cortex" in answer(page)
    assert "right hemisphere" in part(page, "strongest").inner_text()

    good = table_of(inverse, examples[0]).iloc[:30]
    text = good.to_csv(index=False)
    micro = good.copy()
    micro[list(inverse.ch_names)] *= 1e6
    gap = good.copy()
    gap.loc[3, "O2"] = np.nan
    bad = {
        r'begins with "Fp1".*expected "time"': good.drop(columns="time").to_csv(index=False),
        r"channels Fp1 are missing": good.drop(columns="Fp1").to_csv(index=False),
        r"columns repeat: Fp1": text.replace("AF3", "Fp1", 1),
        r'line 5, column O2: "" is no number': gap.to_csv(index=False),
        r"line 3 has 2 columns, the first line 33": text.replace(
            "\n-0.096,", "\n-0.096,1\n-0.095,"
        ),
        r"line 31: the time does not increase": text.replace("\n0.016", "\n-0.1"),
        r"look like microvolts": micro.to_csv(index=False),
        r"channels Fp1, AF3 are constant": good.assign(Fp1=0.0, AF3=0.0).to_csv(index=False),
        r"0 samples, expected 1 to 2000": text.split("\n")[0],
    }
    for message, content in bad.items():
        said = give(page, content)
        assert re.search(message, said), said
    assert "refused" in part(page, "status").get_attribute("class")
    assert said.endswith("mm, 120 ms.")  # what is still shown
    part(page, "example").select_option("0")
    assert "left auditory cortex" in answer(page)
    assert give(page, text.replace(",", "\t"), "mine.tsv").startswith("mine.tsv: 30 samples")
    fetched = page.evaluate(f"fetch('{ELSEWHERE}').then(() => 'sent', () => 'blocked')")
    assert fetched == "blocked"
