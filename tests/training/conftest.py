import pytest

from _training import SELECTING, trained


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """The folder of a run that nobody disturbed; not to be changed."""
    return trained(tmp_path_factory.mktemp("run") / "whole", *SELECTING).parent
