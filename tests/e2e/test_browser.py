"""The demo's report in a real browser: it shows the verdict, fits a phone, needs no network, and logs no error."""

from __future__ import annotations

import html
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.browser import BROWSER, DESK, NEEDED, PHONE

if TYPE_CHECKING:
    from conftest import Demo

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(1800),
    NEEDED,
]


def browse(page: Path, folder: Path, *arguments: str) -> str:
    """The DOM of a page after its scripts have run, or whatever else the arguments ask of Chromium."""
    assert BROWSER is not None, "no Chromium; `make browser-deps` installs one"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    profile = f"--user-data-dir={folder / 'profile'}"
    done = subprocess.run(
        [*command, profile, "--virtual-time-budget=5000", *arguments, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    return done.stdout


def framed(report: Path, folder: Path, width: int) -> Path:
    """A page that shows the report in a frame of the given width and writes down how wide it is and what went wrong."""
    probe = "<script>parent.errors = []; onerror = what => parent.errors.push(what)</script>"
    source = html.escape(probe + report.read_text(encoding="utf-8"), quote=True)
    page = folder / f"framed-{width}.html"
    page.write_text(
        f'<!doctype html><body><iframe id="frame" style="width:{width}px;height:900px;border:0" srcdoc="{source}"></iframe>'
        "<script>"
        "frame.onload = () => { const d = frame.contentDocument, b = document.body.dataset;"
        "b.width = d.documentElement.scrollWidth; b.height = d.documentElement.scrollHeight;"
        "b.pictures = d.querySelectorAll('svg, img').length; b.errors = errors.join('; ') }</script>",
        encoding="utf-8",
    )
    return page


def test_the_report_shows_the_verdict(demo: Demo, tmp_path: Path) -> None:
    text = re.sub(
        r"<(style|script)\b.*?</\1>|<[^>]+>", " ", browse(demo.run / "report.html", tmp_path, "--dump-dom"), flags=re.DOTALL
    )

    for word in ("digits", "ccuracy", "onfusion", "alibration", "noise", "95"):
        assert word in text


def pages(demo: Demo) -> dict[str, Path]:
    """The demo's pages: the report of its run, one with data care's findings, and the comparison."""
    return {
        "run": demo.run / "report.html",
        "messy": demo.comparison / "messy-cleaned-seed42" / "report.html",
        "comparison": demo.comparison / "comparison.html",
    }


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", ["run", "messy", "comparison"])
def test_a_page_fits_the_screen_and_makes_no_error(demo: Demo, tmp_path: Path, name: str, width: int) -> None:
    dom = browse(framed(pages(demo)[name], tmp_path, width), tmp_path, "--dump-dom", f"--window-size={DESK},1000")
    measured = dict(re.findall(r'data-(\w+)="([^"]*)"', dom))

    assert int(measured["width"]) <= width, "it must be scrolled sideways"
    assert int(measured["pictures"]) >= (1 if name == "comparison" else 3)
    assert measured["errors"] == ""


def test_the_report_needs_nothing_from_outside(demo: Demo) -> None:
    page = (demo.run / "report.html").read_text(encoding="utf-8")

    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)([^"']+)""", re.sub(r"<a\b[^>]*>", "", page)) == []
    assert re.findall(r"url\(\s*[\"']?(?!data:|#)", page) == []
    assert "@import" not in page


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_picture_of_the_report_is_not_blank(demo: Demo, tmp_path: Path, width: int) -> None:
    from PIL import Image

    picture = tmp_path / "report.png"
    page = framed(demo.run / "report.html", tmp_path, width)
    browse(page, tmp_path, f"--screenshot={picture}", f"--window-size={max(width + 20, 500)},1000")

    colours = Image.open(picture).convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    assert len(colours) > 50


def test_samples_are_filtered_in_a_browser(demo: Demo, tmp_path: Path) -> None:
    """All wrong ones of one class are left where both chips are chosen."""
    page = framed(demo.run / "report.html", tmp_path, DESK)
    left = (
        "const left = () => [...d.querySelectorAll('.s')].filter(one => getComputedStyle(one).display != 'none').length;"
        "b.all = left(); d.getElementById('s-w').click(); b.wrong = left(); d.getElementById('r-r3').click(); b.both = left();"
    )
    page.write_text(page.read_text(encoding="utf-8").replace("b.errors =", left + "b.errors ="), encoding="utf-8")
    counted = {
        name: int(value) for name, value in re.findall(r'data-(all|wrong|both)="(\d+)"', browse(page, tmp_path, "--dump-dom"))
    }
    shown = (demo.run / "report.html").read_text(encoding="utf-8")

    assert counted == {
        "all": len(re.findall(r'class="s [wg]', shown)),
        "wrong": shown.count('class="s w'),
        "both": shown.count('class="s w r3"'),
    }
