"""Places that nothing can be written to."""

from pathlib import Path

import pytest

from deepesi.utils.files import check_folder_out


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no files")
@pytest.mark.parametrize("path", ["/proc", "/proc/deeper/still"])
def test_folder_that_takes_no_files_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"nothing can be written to /proc \("):
        check_folder_out(Path(path))


def test_home_that_no_shell_replaced_is_refused() -> None:
    with pytest.raises(ValueError, match="did not replace ~"):
        check_folder_out(Path("~/results"))


def test_folder_that_does_not_exist_yet_is_fine_and_stays_so(tmp_path: Path) -> None:
    check_folder_out(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
