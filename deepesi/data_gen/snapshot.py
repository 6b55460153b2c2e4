"""Sources and set-ups of ``data=snapshot``, the default of `SimulatedRecordings`."""

from deepesi.data_gen.noise import NoiseRanges
from deepesi.data_gen.setups import SetupRanges
from deepesi.data_gen.sources import PatchSources

#: Two thirds of the recordings have one source; otherwise networks get worse for single sources.
SNAPSHOT_SOURCES = PatchSources(simple_share=0.5)

#: Six montages of 19 to 128 channels, three kinds of noise with an estimated covariance, errors
#: of the cap position. The values equal those of the YAML file; a test checks that.
SNAPSHOT_SETUPS = SetupRanges(
    montages=(
        "biosemi64",
        "biosemi32",
        "biosemi128",
        "easycap-M10",
        "GSN-HydroCel-65_1.0",
        "fsaverage_1020",
    ),
    noise=NoiseRanges(white=(0.02, 1.0), coloured=(0.02, 1.0), brain=(0.02, 1.0)),
    coregistration_shift=0.0035,
    coregistration_rotation=3.0,
    dropout=(0.0, 0.2),
    baseline=(200, 5000),
)
