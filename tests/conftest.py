"""Shared heads and recordings; shape checking switched on for every module above the ground."""

import functools
import gc
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

# Tests run in several processes; threads that wait for cores that are taken make no progress.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import yaml
from jaxtyping import install_import_hook

install_import_hook(
    [f"deepesi.{name}" for name in ("core", "models", "baselines", "losses")],
    "beartype.beartype",
)

# What needs torch is imported where it is used: the process that only starts the others reads this
# file, too.
import mne  # noqa: E402

from deepesi.physics.building.anatomy import Anatomy, ico_faces, read_anatomy  # noqa: E402
from deepesi.physics.template import DisplayMesh, Template, load_template, save_template  # noqa: E402

# Hydra reads some twenty files for every configuration, ten times faster by the parser in C.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def slow(*values):
    """Values of a parametrized test that run with ``pytest -m slow`` only."""
    return pytest.param(*values, marks=pytest.mark.slow)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--freeze",
        action="store_true",
        help="write the reference estimates anew, then look at them",
    )
    parser.addoption("--fuzz", type=int, default=40, help="damaged inputs of every kind")


def folder_times(reports: Iterable[pytest.TestReport]) -> dict[str, tuple[float, int]]:
    """Seconds and number of tests per top folder of tests, the slowest first.

    The seconds include set-up and teardown. Files of ``tests/`` itself are together.
    """
    seconds, tests = defaultdict(float), defaultdict(set)
    for report in reports:
        parts = report.nodeid.split("::")[0].split("/")
        folder = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        seconds[folder] += report.duration
        tests[folder].add(report.nodeid)
    return {f: (seconds[f], len(tests[f])) for f in sorted(seconds, key=seconds.get, reverse=True)}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the time of every folder. Reports of other processes arrive in this one."""
    reports = [r for group in terminalreporter.stats.values() for r in group]
    times = folder_times(r for r in reports if isinstance(r, pytest.TestReport))
    if not times:
        return
    terminalreporter.section("seconds and number of tests per folder")
    for folder, (seconds, n_tests) in times.items():
        terminalreporter.write_line(f"{folder:<20} {seconds:8.1f} s {n_tests:6d}")


SHARED = Path(__file__).parents[2] / "shared" / "data" / "mne-sample"
EEGLAB = SHARED.with_name("eeglab")


@pytest.fixture(scope="session", autouse=True)
def fast_exports() -> None:
    """Exports take half the time."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    # Tracing a network makes millions of objects that stay; looking for garbage among them takes
    # a fifth of the time of an export.
    gc.set_threshold(100_000, 50, 50)
    gc.freeze()  # nor is there any in what was imported
    # The exporter compiles its table of operators anew for every file, which takes a second.
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """Folder of the MNE sample recordings, where they are at hand."""
    if not SHARED.is_dir():
        pytest.skip(f"the MNE sample recordings are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def eeglab_data() -> Path:
    """Folder of EEGLAB's sample recording, where it is at hand."""
    if not EEGLAB.is_dir():
        pytest.skip(f"EEGLAB's sample recording is not at {EEGLAB}")
    return EEGLAB


@pytest.fixture(scope="session")
def template() -> Template:
    return load_template()


@pytest.fixture(scope="session")
def fsaverage_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``SUBJECTS_DIR`` with fsaverage, of its first 10,242 vertices: nilearn's fsaverage5.

    Its parcellation ``aparc`` has two parcels per hemisphere: front and back.
    """
    import nibabel.freesurfer
    from nilearn.datasets import fetch_surf_fsaverage, load_fsaverage
    from nilearn.surface import load_surf_data

    folder = tmp_path_factory.mktemp("subjects")
    surf = folder / "fsaverage" / "surf"
    surf.mkdir(parents=True)
    (folder / "fsaverage" / "label").mkdir()
    fsaverage, paths, labels = load_fsaverage("fsaverage5"), fetch_surf_fsaverage("fsaverage5"), []
    sphere = np.asarray(fsaverage["sphere"].parts["left"].coordinates, float)
    faces = ico_faces(sphere, len(sphere))
    names = {"white": "white_matter", "pial": "pial", "inflated": "inflated", "sphere": "sphere"}
    names["sphere.reg"] = "sphere"
    for hemi, side in (("lh", "left"), ("rh", "right")):
        for name, kind in names.items():
            points = np.asarray(fsaverage[kind].parts[side].coordinates, float)
            mne.write_surface(surf / f"{hemi}.{name}", points, faces)
        curvature = np.asarray(load_surf_data(paths[f"curv_{side}"]), np.float32)
        nibabel.freesurfer.write_morph_data(surf / f"{hemi}.curv", curvature)
        white = np.asarray(fsaverage["white_matter"].parts[side].coordinates, float)
        front = white[:, 1] > np.median(white[:, 1])
        for name, inside, colour in (
            ("front", front, (1, 0, 0, 1)),
            ("back", ~front, (0, 0, 1, 1)),
        ):
            vertices = np.flatnonzero(inside)
            label = mne.Label(vertices, 1e-3 * white[vertices], hemi=hemi, name=f"{name}-{hemi}")
            label.color = colour
            labels.append(label)
    mne.write_labels_to_annot(labels, "fsaverage", "aparc", subjects_dir=folder, verbose="error")
    return folder


def coarse(mesh: DisplayMesh, faces: np.ndarray) -> DisplayMesh:
    """The first vertices of a mesh, with their own faces: drawn in a fraction of the time."""
    n = faces.max() + 1
    return DisplayMesh(
        mesh.positions[:, :n],
        faces,
        mesh.sulci[:, :n],
        mesh.source_index[:n],
        mesh.source_weight[:n],
    )


@pytest.fixture(scope="session")
def toy_path(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head of 84 sources on disk: the ico-1 vertices of the packaged one, on a coarse mesh."""
    anatomy = read_anatomy("ico1", "ico3")
    rows = np.r_[0:42, 642:684]
    toy = replace(
        template,
        name="toy",
        family=replace(template.family, source_modes=template.family.source_modes[rows]),
        space=anatomy.space,
        source_pos=template.source_pos[rows],
        source_normals=template.source_normals[rows],
        source_mni=template.source_mni[rows],
        is_cortex=template.is_cortex[rows],
        display=coarse(anatomy.display, anatomy.skull.faces),
    )
    path = tmp_path_factory.mktemp("head") / "toy.npz"
    save_template(path, toy)
    return path


@pytest.fixture(scope="session")
def toy(toy_path: Path) -> Template:
    return load_template(toy_path)


@pytest.fixture(scope="session")
def free_toy(toy: Template) -> Template:
    """The toy head with three components per source."""
    free = load_template("fsaverage-ico3-free")
    modes = free.family.source_modes.reshape(1284, 3, -1)[np.r_[0:42, 642:684]]
    return replace(
        toy,
        name="toy-free",
        family=replace(free.family, source_modes=modes.reshape(252, -1)),
        space=replace(toy.space, n_orient=3),
        fingerprint="toy-free",
    )


@pytest.fixture(scope="session")
def simulate(toy: Template):
    """Draws batches on the toy head, 16 channels unless told otherwise."""
    from deepesi.data_gen.generator import SimulatedRecordings
    from deepesi.data_gen.setups import SetupRanges
    from deepesi.data_gen.sources import PatchSources

    def make(declarations=(), heads=toy, montage="biosemi16", **settings) -> SimulatedRecordings:
        defaults = {"batch_size": 8, "pool_size": 1, "pool_period": 1}
        sources = settings.pop("sources", PatchSources(radius=(0.03, 0.06)))
        ranges = settings.pop("setups", SetupRanges(montages=[montage]))
        return SimulatedRecordings(
            heads, sources, ranges, list(declarations), **(defaults | settings)
        )

    return make


@pytest.fixture(scope="session")
def eloreta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported eLORETA, which follows any head."""
    from deepesi.cli.export import export_path

    folder = tmp_path_factory.mktemp("x")
    return export_path("eloreta", folder / "e.onnx", "fsaverage-ico3", "biosemi32")


def write_subject(folder: Path, talairach: str) -> None:
    """FreeSurfer's folder of a subject with a small MRI and rows of the transform to MNI305."""
    import nibabel

    transforms = folder / "mri" / "transforms"
    transforms.mkdir(parents=True)
    (transforms / "talairach.xfm").write_text(
        "MNI Transform File\n\nTransform_Type = Linear;\nLinear_Transform =\n" + talairach + ";\n"
    )
    affine = np.array([[-1, 0, 0, 2], [0, 0, 1, -2], [0, -1, 0, 2], [0, 0, 0, 1]])
    image = nibabel.MGHImage(np.zeros((4, 4, 4), np.float32), affine)
    nibabel.save(image, folder / "mri" / "T1.mgz")


def make_evoked(montage: str = "biosemi32", n_times: int = 30, seed: int = 0) -> mne.EvokedArray:
    """An evoked response of noise around 1 µV with the positions of a montage."""
    positions = mne.channels.make_standard_montage(montage)
    info = mne.create_info(positions.ch_names, 250.0, "eeg")
    info.set_montage(positions)
    data = np.random.default_rng(seed).normal(scale=1e-6, size=(len(info.ch_names), n_times))
    return mne.EvokedArray(data, info, tmin=0.0, nave=4, comment="noise")


def make_covariance(info: mne.Info, level: float = 2e-6) -> mne.Covariance:
    """White noise covariance of single trials."""
    names = [info["ch_names"][i] for i in mne.pick_types(info, eeg=True, exclude=[])]
    return mne.Covariance(level**2 * np.eye(len(names)), names, [], [], nfree=1000)


def save_evoked() -> mne.EvokedArray:
    """A short response, strongest in its fourth sample; with its noise covariance in this folder.

    The files are ``x-ave.fif`` and ``x-cov.fif``.
    """
    evoked = make_evoked("biosemi16", n_times=5)
    evoked.data[:, 3] *= 5
    evoked.save("x-ave.fif", verbose="error")
    make_covariance(evoked.info).save("x-cov.fif", verbose="error")
    return evoked


def with_coarse_scalp(anatomy: Anatomy) -> Anatomy:
    """A scalp of 162 vertices 16 mm above the inner skull, so that a BEM takes a second."""
    skull = anatomy.skull
    return replace(anatomy, scalp=(skull.inner + 0.016 * skull.directions, skull.faces))
