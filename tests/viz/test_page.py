"""The shell of every page: nothing is loaded, nothing cut, everything escaped."""

import re

import pytest
from matplotlib.figure import Figure

from deepesi.viz.page import SORT, facts_table, html_table, key, picture, png, tiles, write_page


def drawing(width=4.0):
    figure = Figure(figsize=(width, 2.0))
    figure.subplots().plot([0, 1])
    return figure


@pytest.fixture
def page(tmp_path):
    table = html_table(["method", "a < b"], [[("x", False), ("1.5 [1, 2]", True)]], [True])
    sections = {"One & two": table, "Pictures": picture(png(drawing()), "a curve")}
    write_page(tmp_path / "page.html", "Title", {"command": "a < b\nc"}, ["careful"], sections)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    return (tmp_path / "page.html").read_text()


def test_page_is_whole_and_loads_nothing(page):
    assert not re.findall(r"(?:src|href)=['\"](?!data:|#)", page)
    assert "name='viewport'" in page  # or phones show a page of 980 pixels
    for part in ("<h1>Title</h1>", "a &lt; b<br>c", "class='note'>careful", "alt='a curve'"):
        assert part in page, part


def test_headings_can_be_jumped_to(page):
    links = re.findall(r"<a href='#([^']*)'>([^<]*)</a>", page)
    assert [text for _, text in links] == ["One &amp; two", "Pictures"]
    for anchor, text in links:
        assert f"<h2 id='{anchor}'>{text}</h2>" in page


def test_tables_scroll_and_sort(page):
    """Each stands in a box that scrolls, and a button in every heading sorts."""
    assert page.count("<table class='data'>") == 1
    assert "<div class='scroll' tabindex='0'><table class='data'>" in page
    assert page.count("<th scope='col'><button type='button'>") == 2
    assert "<tr class=shaded><td class='word'>x</td><td><b>1.5 [1, 2]</b></td></tr>" in page
    assert 'querySelectorAll(".data th button")' in page


def test_names_that_begin_with_a_digit_are_words():
    """They are folded on a phone and sorted as text, numbers with units of one letter are not."""
    table = html_table(["method", "x"], [[("3 x Net", False), ("-1.5 [-2, -1]", False)]])
    assert "<td class='word'>3 x Net</td><td>-1.5 [-2, -1]</td>" in table
    assert "isNaN(number) || /[a-z]{2}/i.test(text) ? text : number" in SORT


def test_text_of_tables_is_escaped():
    table = html_table(["<i>"], [[("<script>", True)]], long=["<i>"])
    assert "<td class='long'><b>&lt;script&gt;</b></td>" in table
    assert "&lt;i&gt;" in table
    assert "<td>a&quot;<br>b</td>" in facts_table({"x": 'a"\nb'})
    assert "&lt;b&gt;</li>" in key({"<b>": ("#000000", "--")})


def test_wide_pictures_stay_readable_on_a_phone():
    """They are moved sideways in their box instead of being shrunk without end."""
    assert "width='1600' style='min-width:1280px'" in picture(png(drawing(16)), "wide")
    assert "width='400' style='min-width:320px'" in picture(png(drawing(4)), "small")


def test_tiles_have_the_width_asked_for_and_a_caption():
    text = tiles([("a < b", drawing()), ("c", drawing())], 300)
    assert text.count("<figure style='width:300px'>") == 2
    assert "<figcaption>a &lt; b</figcaption>" in text
