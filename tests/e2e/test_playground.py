"""The playground in a real browser, over real HTTP: it answers, fits a phone, keeps to its policy, says what goes wrong."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from support.browser import BROWSER, DESK, NEEDED, PHONE
from support.runs import finished_run
from support.served import Scripted, Service, listening
from tunesmith_serving.describe import Description
from tunesmith_serving.engine import Engine
from tunesmith_serving.reply import Answered

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    NEEDED,
]

HAND = """<!doctype html><body style="margin:0"><iframe id="frame" style="border:0;height:1300px"></iframe><script>
const q = new URLSearchParams(location.search), seen = [];
const until = async what => {
  for (let k = 0; k < 500; k++) { if (what()) return; await new Promise(done => setTimeout(done, 20)); }
  throw new Error("waited in vain for " + what);
};
frame.style.width = q.get("width") + "px";
frame.onload = async () => {
  const w = frame.contentWindow, d = w.document, $ = id => d.getElementById(id);
  w.addEventListener("error", one => seen.push(one.message));
  d.addEventListener("securitypolicyviolation", one => seen.push("policy: " + one.violatedDirective));
  const failed = () => !$("problem").hidden;
  try {
    $("key").value = q.get("key");
    $("gate").requestSubmit();
    await until(() => !$("bench").hidden || failed());
    if (!failed()) {
      $("model").value = q.get("model");
      $("model").dispatchEvent(new w.Event("change"));
      const given = JSON.parse(q.get("given"));
      for (const [role, value] of Object.entries(given)) {
        const field = $("in-" + role);
        if (field.type !== "file") { field.value = value; continue; }
        const files = new w.DataTransfer();
        const bytes = Uint8Array.from(atob(value), one => one.charCodeAt(0));
        files.items.add(new w.File([bytes], "it's one.png", {type: "image/png"}));
        field.files = files.files;
        field.dispatchEvent(new w.Event("change"));
      }
      d.body.dispatchEvent(new w.KeyboardEvent("keydown", {key: "Enter", ctrlKey: true, bubbles: true}));
      await until(() => d.querySelector(".facts") || failed());
    }
  } catch (error) { seen.push(String(error)); }
  const small = [...d.querySelectorAll("button, select, textarea")].filter(one => one.offsetParent && one.offsetHeight < 24);
  const found = {
    width: d.documentElement.scrollWidth, text: d.body.innerText, seen, small: small.length, problem: $("problem").textContent,
    bars: [...d.querySelectorAll(".scores li")].map(one => one.innerText.replace(/\\s+/g, " ").trim()),
    curl: $("curl").textContent, stored: Object.keys(sessionStorage), kept: Object.keys(localStorage), cookies: d.cookie,
    unnamed: [...d.querySelectorAll("textarea, select, input:not([hidden])")].filter(one => !one.labels.length).length,
  };
  document.body.replaceChildren(Object.assign(document.createElement("output"), {textContent: JSON.stringify(found)}));
};
frame.src = "/";
</script>"""


class Playground:
    """A service with a page beside it that uses the playground as a person would."""

    def __init__(self, url: str, key: str, profile: Path) -> None:
        self.url, self.key, self._profile = url, key, profile

    def used(self, model: str, given: dict[str, str], *, key: str = "", width: int = DESK) -> dict[str, Any]:
        """What is to be seen after a person has asked the model."""
        assert BROWSER is not None, "no Chromium; `make browser-deps` installs one"
        asked = {"key": key or self.key, "model": model, "given": json.dumps(given), "width": str(width)}
        done = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             f"--user-data-dir={self._profile}", "--virtual-time-budget=30000", f"--window-size={DESK},1300",
             "--dump-dom", f"{self.url}/hand?{urlencode(asked)}"],
            capture_output=True, text=True, timeout=240, check=True,
        )  # fmt: skip
        found = re.search(r"<output>(.*?)</output>", done.stdout, re.DOTALL)
        assert found, done.stdout[-2000:]
        return dict(json.loads(html.unescape(found[1])))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that classifies images."""
    return Path(finished_run(tmp_path_factory.mktemp("corners"), "image-classification").path)


@pytest.fixture(scope="module")
def playground(picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    """A text pair, words and an image classifier, the first two of our own making."""

    async def pairs(examples: list[Any]) -> Answered:
        said = {f"label {k}": 0.9 if k == 0 else 0.1 / 11 for k in range(12)}
        answer = {"label": examples[0]["text_pair"], "probabilities": list(said.values())}
        return Answered([{**answer, "label": "label 0"} for _ in examples])

    async def words(examples: list[Any]) -> Answered:
        count = len(examples[0]["words"])
        return Answered([{"tags": ["B-PER", *["O"] * (count - 1)], "scores": [0.5] * count} for _ in examples])

    def about(name: str, columns: dict[str, str], labels: tuple[str, ...]) -> Description:
        return Description(name, "1", "text-classification", "", labels, columns, (next(iter(columns)),), (), (), True)

    labels = tuple(f"label {k}" for k in range(12))
    service = Service(
        tmp_path_factory.mktemp("service"),
        Scripted(about("pairs", {"text": "text", "text_pair": "text"}, labels), pairs),
        Scripted(about("words", {"words": "strings"}, ("O", "B-PER")), words),
        Engine.load(str(picture / "model"), "corners"),
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != "/hand":
            await service.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html; charset=utf-8")]})
        await send({"type": "http.response.body", "body": HAND.encode()})

    with listening(app) as url:
        yield Playground(url, service.key, tmp_path_factory.mktemp("profile"))


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_two_texts_are_answered_with_bars_and_numbers(playground: Playground, width: int) -> None:
    seen = playground.used("pairs", {"text": "it's <b>bold</b>", "text_pair": "$HOME"}, width=width)
    assert seen["seen"] == []
    assert seen["problem"] == ""
    assert seen["width"] <= width, "it must be scrolled sideways"
    assert (seen["small"], seen["unnamed"]) == (0, 0)
    assert seen["bars"][:2] == ["label 0 90.0 %", "label 1 0.9 %"]
    assert "4 more" in seen["text"]
    assert re.search(r"pairs, version 1 · [\d.]+ ms in the service, \d+ ms in all", seen["text"])


def test_the_curl_line_says_the_same_and_not_the_key(playground: Playground) -> None:
    seen = playground.used("pairs", {"text": "it's <b>bold</b>", "text_pair": '$HOME `x` \\ "q"'})
    assert playground.key not in seen["text"] + seen["curl"]
    assert (seen["stored"], seen["kept"], seen["cookies"]) == (["tunesmith-key"], [], "")
    answer = _shell(seen["curl"], playground.key)
    assert answer["predictions"][0]["label"] == "label 0"


def test_an_image_is_answered_and_its_curl_line_too(playground: Playground, picture: Path, tmp_path: Path) -> None:
    import base64

    file = sorted(picture.parents[1].glob("images/*.png"))[0]
    seen = playground.used("corners", {"image": base64.b64encode(file.read_bytes()).decode()}, width=PHONE)
    assert (seen["seen"], seen["problem"], len(seen["bars"])) == ([], "", 4)
    assert seen["width"] <= PHONE
    shutil.copy(file, tmp_path / "it's one.png")
    said = _shell(seen["curl"], playground.key, tmp_path)["predictions"][0]
    assert seen["bars"][0].startswith(said["label"])


def test_words_show_their_tags(playground: Playground) -> None:
    seen = playground.used("words", {"words": "Ada  lives here"})
    assert re.search(r"Ada\s+B-PER 50.0 %\s+lives\s+O 50.0 %", seen["text"]), seen


@pytest.mark.parametrize(
    ("model", "given", "key", "says"),
    [
        ("pairs", {"text": "a"}, "wrong", "401: wrong key"),
        ("pairs", {"text": ""}, "", "Write something first."),
        ("corners", {}, "", "Choose an image first."),
        ("corners", {"image": "bm8gaW1hZ2U="}, "", "422: inputs[0]"),
    ],
)
def test_what_goes_wrong_is_said_in_the_services_words(
    playground: Playground, model: str, given: dict[str, str], key: str, says: str
) -> None:
    seen = playground.used(model, given, key=key)
    assert says in seen["problem"]
    assert (seen["seen"], seen["bars"]) == ([], [])


def _shell(line: str, key: str, folder: Path | None = None) -> Any:
    done = subprocess.run(
        ["sh", "-c", line], env={**os.environ, "KEY": key}, cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout)
