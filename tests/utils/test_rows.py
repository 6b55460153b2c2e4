import pytest

from deepesi.utils.nearest import nearest
from deepesi.utils.rows import append_rows, read_rows, write_rows


def test_rows_come_back_by_column(tmp_path):
    path = tmp_path / "x.csv"
    write_rows(path, ("a", "b"), [("1, 2", None), ("µ\nν", 0.1)])
    append_rows(path, [(3, "x")])
    assert read_rows(path, ("a", "b"), "") == [
        {"a": "1, 2", "b": ""},
        {"a": "µ\nν", "b": "0.1"},
        {"a": "3", "b": "x"},
    ]
    with pytest.raises(ValueError, match=r"x.csv has the columns \['a', 'b'\], expected .* Begin"):
        read_rows(path, ("a", "c"), "Begin anew.")


def test_tabs_between_columns(tmp_path):
    write_rows(tmp_path / "x.tsv", ("a", "b"), [(1, 2)], delimiter="\t")
    assert (tmp_path / "x.tsv").read_bytes() == b"a\tb\n1\t2\n"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    def rows():
        yield (1,)
        raise RuntimeError

    write_rows(tmp_path / "x.csv", ("a",), [("before",)])
    with pytest.raises(RuntimeError):
        write_rows(tmp_path / "x.csv", ("a",), rows())
    assert (tmp_path / "x.csv").read_text() == "a\nbefore\n"
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


def test_names_that_were_meant():
    assert nearest("montages", ["snr", "montage"]) == "Nearest: montage; all: snr, montage."
    assert nearest("zz", ["snr", "montage"]) == "All: snr, montage."
