"""A head prepared for a live system; discovery of streams stays on this machine."""

import pytest

from deepesi.physics.atlas import seitzman_parcels
from deepesi.runtime.inverse import Inverse
from deepesi.streaming import source
from deepesi.streaming.source import library
from tests.conftest import make_covariance, make_evoked

# Where streams are not announced to all (multicast), they are asked one by one after this time.
source.LOCAL += "[tuning]\nMulticastMinRTT = 0.1\nUnicastMinRTT = 0.2\n"


@pytest.fixture(scope="session", autouse=True)
def local_discovery():
    library()


USUAL = source.LISTING


@pytest.fixture(scope="session", autouse=True)
def short_listing():
    """Streams of this machine answer at the second call, after 0.1 s, at the latest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "LISTING", 0.3)
        yield


@pytest.fixture
def long_listing(monkeypatch):
    """The time that is waited in use, where every stream of a name must be found."""
    monkeypatch.setattr(source, "LISTING", USUAL)


@pytest.fixture(scope="session")
def prepared(eloreta):
    info = make_evoked().info
    return Inverse.load(eloreta, n_threads=1).for_recording(info, make_covariance(info))


@pytest.fixture(scope="session")
def parcels(prepared):
    return seitzman_parcels(prepared.space)
