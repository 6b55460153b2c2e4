"""`deepesi preview` on the toy head: every data group, a head without a mesh, the page itself."""

import base64
import io
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from deepesi.cli.main import main
from deepesi.cli.preview import draw_examples
from deepesi.data_gen.generator import SimulatedRecordings
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import SHAPES, PatchSources
from deepesi.physics.template import save_template
from deepesi.viz.cortex import VIEWS, best_views, covering_views
from tests.conftest import slow

TINY = [
    "n_examples=1",
    "n_summary=32",
    "data.sources.radius=[0.03,0.06]",
    "data.setups.montages=[biosemi16]",
]


@pytest.fixture
def preview(tmp_path, monkeypatch):
    """Run the command and give back the folder it wrote into."""
    monkeypatch.setattr(sys, "argv", ["deepesi"])
    monkeypatch.chdir(tmp_path)

    def run(head, *overrides):
        main(["preview", f"head.name={head}", *TINY, *overrides, f"hydra.run.dir={tmp_path}/run"])
        return tmp_path / "run"

    return run


def pictures(page: str) -> list[np.ndarray]:
    """All images of a page, decoded."""
    sources = re.findall(r"<img src='([^']*)'", page)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    return [imread(io.BytesIO(base64.b64decode(s.split(",")[1]))) for s in sources]


def is_drawn(image: np.ndarray) -> bool:
    return min(image.shape[:2]) > 200 and image[..., :3].std() > 0.05


@pytest.mark.parametrize(
    "data",
    ["curriculum", *map(slow, ["everything", "snapshot", "erp", "oscillation", "neural_mass"])],
)
def test_every_data_group(preview, toy_path, data):
    n_times = [] if data == "snapshot" else ["data.n_times=20"]
    folder = preview(toy_path, f"data={data}", *n_times)
    page = (folder / "preview.html").read_text()
    drawn = ["32 examples", *["Curriculum"] * (data == "curriculum"), "Example 1"]
    assert re.findall(r"<h2 [^>]*>([^<:]*)", page) == [*drawn, "Configuration"]
    images = pictures(page)
    assert len(images) == len(drawn)
    assert all(map(is_drawn, images))
    assert is_drawn(imread(folder / "example-1.png"))
    assert not [path for path in folder.iterdir() if "partial" in path.name]


def test_real_recordings_have_no_source_to_draw(toy_path, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["deepesi"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="data=real is not simulated, so there is no source"):
        main(["preview", "data=real", "data.files=[x.fif]", f"head.name={toy_path}"])


def test_it_shows_how_far_the_true_cortex_is_from_the_grid(preview, toy_path):
    folder = preview(
        toy_path, "data.setups.anatomy={_target_:deepesi.data_gen.anatomy.AnatomyRanges}"
    )
    page = (folder / "preview.html").read_text()
    assert re.search(r"true cortex: 1: \d+ mm from the grid, normal turned by \d+°", page)
    assert "the template as anatomy" in page


def test_facts_name_the_definition_of_every_patch(toy):
    ranges = SetupRanges(["biosemi16"])
    sources = PatchSources((1, 1), (0.03, 0.06), shapes=SHAPES, extent=["euclidean"])
    recordings = SimulatedRecordings(toy, sources, ranges, batch_size=1, pool_size=1)
    examples, _ = draw_examples(recordings, ranges, 40, 40)
    lines = [re.sub(r"[\d.]+", "#", example.facts["sources"]) for example in examples]
    radii = {"point": "", "field": "", "diffused": ", radius # mm", "split": ", radius # mm"}
    expected = {f"#: # nAm, {s}{radii.get(s, ', radius # mm (Euclidean)')}" for s in SHAPES}
    assert set(lines) == expected


def test_page_says_how_it_was_made(preview, toy_path):
    folder = preview(toy_path, "n_examples=2", "seed=7", "data.n_times=20")
    page = (folder / "preview.html").read_text()
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", page)
    assert "<td>7, split &#x27;validation&#x27;" in page
    assert "deepesi preview" in page
    assert "n_times: 20" in page
    assert "trainer" not in page
    assert len(pictures(page)) == 3
    assert sorted(p.name for p in folder.glob("*.png")) == ["example-1.png", "example-2.png"]


@pytest.mark.slow
def test_head_without_a_mesh(preview, toy, tmp_path):
    """Three components per source, drawn in projections."""
    modes = np.repeat(toy.family.source_modes, 3, axis=0)
    free = replace(
        toy,
        family=replace(toy.family, source_modes=modes),
        space=replace(toy.space, n_orient=3),
        display=None,
    )
    save_template(tmp_path / "free.npz", free)
    folder = preview(tmp_path / "free.npz", "data.n_times=20")
    assert is_drawn(imread(folder / "example-1.png"))


@pytest.mark.slow
def test_what_a_head_cannot_vary_is_said(sample_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["deepesi"])
    forward = sample_data / "derived" / "sample-oct5-eeg-fwd.fif"
    main(
        [
            "preview",
            "head=forward",
            f"head.forward={forward}",
            "n_examples=1",
            "n_summary=4",
            "data.n_times=20",
            f"hydra.run.dir={tmp_path}",
        ]
    )
    assert "has one lead field only" in capsys.readouterr().out
    assert (tmp_path / "preview.html").read_text().count("class='note'") == 3


def test_unknown_data_group(preview, toy_path):
    with pytest.raises(SystemExit, match="'dream'|data/dream|data=dream"):
        preview(toy_path, "data=dream")


def test_views_cover_all_sources(template):
    mesh = template.display
    sources = np.array([10, 700, 30, 1200])
    views = covering_views(sources, mesh)
    assert len(set(views)) == 4
    assert {best_views(int(s), mesh, 1)[0] for s in sources} <= set(VIEWS)
    for source in sources:
        assert set(best_views(int(source), mesh, 2)) & set(views)
