"""A real browser for tests of pages: headless Chromium, which reports errors, requests, and what does not fit."""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

WIDTHS = (1280, 390)  # of a laptop, and of a phone
SCHEMES = ("light", "dark")
HEIGHT = 900
INSTALL = "install it with: apt-get install chromium, or python -m playwright install chromium"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

# An element inside something that scrolls or clips is as wide as the page lets it be. Text that is wider than its own box lies
# over what stands beside it.
WHAT_DOES_NOT_FIT = """() => {
  const page = document.documentElement.clientWidth;
  const overflow = element => getComputedStyle(element).overflowX;
  const bounded = element => {
    for (let outer = element.parentElement; outer && outer !== document.body; outer = outer.parentElement)
      if (overflow(outer) !== 'visible') return true;
    return false;
  };
  const found = [];
  for (const element of document.body.querySelectorAll('*')) {
    const box = element.getBoundingClientRect(), tag = element.tagName.toLowerCase();
    const words = element.textContent.trim().slice(0, 60);
    if (box.width && box.right > page + 0.5 && getComputedStyle(element).visibility === 'visible' && !bounded(element)) {
      const name = tag + (element.className.length ? '.' + element.className : '');
      found.push(`${name} ends at ${Math.round(box.right)} of ${page} px: ${words}`);
    }
    const has_text = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const spills = element.clientWidth && element.scrollWidth > element.clientWidth + 1;
    if (element instanceof HTMLElement && has_text && spills && overflow(element) === 'visible')
      found.push(`the text of ${tag} spills over its box: ${words}`);
  }
  return found;
}"""


class Seen(NamedTuple):
    """A page as it was seen: what went wrong, and its picture.

    errors: of the console, of scripts, and requests that failed.  requests: addresses outside of the file.  wide: elements
    that end right of the page, and text that spills over its box.  answer: what `act` returned.
    """

    errors: list[str]
    requests: list[str]
    wide: list[str]
    screenshot: Path
    answer: Any

    @property
    def problems(self) -> list[str]:
        """All that a page of ours must not have."""
        return [*self.errors, *(f"request of {address}" for address in self.requests), *self.wide]


class Browser:
    """Headless Chromium in a thread of its own, whose event loop the other tests do not meet."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1)
        self._playwright, self._chromium = self._thread.submit(_start).result()

    def look(
        self,
        page: Path,
        folder: Path,
        *,
        width: int = 1280,
        scheme: str = "light",
        script: bool = True,
        act: Callable[[Any], Any] | None = None,
    ) -> Seen:
        """Open the HTML file in a window of this width, and save a picture of the whole page in the folder.

        scheme: "light" | "dark".  script: False: as in a browser without JavaScript.  act: is called with the page of playwright
        before the picture is taken: to click, to hover.
        """
        return self._thread.submit(_look, self._chromium, page, folder, (width, scheme, script), act).result()

    def look_everywhere(self, page: Path, folder: Path) -> dict[str, Seen]:
        """The page in every width and scheme, and without JavaScript: "390 px, dark" -> what was seen."""
        seen = {
            f"{width} px, {scheme}": self.look(page, folder, width=width, scheme=scheme)
            for width in WIDTHS
            for scheme in SCHEMES
        }
        return seen | {"390 px, no JavaScript": self.look(page, folder, width=390, script=False)}

    def close(self) -> None:
        self._thread.submit(lambda: (self._chromium.close(), self._playwright.stop())).result()
        self._thread.shutdown()


def problems_of(browser: Browser, page: Path, folder: Path) -> dict[str, list[str]]:
    """What is wrong with a page, by the way it was looked at; empty for a good one. The pictures are in the folder."""
    return {how: seen.problems for how, seen in browser.look_everywhere(page, folder).items() if seen.problems}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a process. Without Chromium they are skipped, and fail where CI=true."""
    try:
        started = Browser()
    except FileNotFoundError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    yield started
    started.close()


def _start() -> tuple[Any, Any]:
    from playwright.sync_api import sync_playwright

    playwright = sync_playwright().start()
    program = next(filter(None, map(shutil.which, PROGRAMS)), playwright.chromium.executable_path)
    if not Path(program).exists():
        playwright.stop()
        raise FileNotFoundError(f"the tests of pages need Chromium, which is not on this machine; {INSTALL}")
    return playwright, playwright.chromium.launch(executable_path=program)


def _look(
    chromium: Any, file: Path, folder: Path, how: tuple[int, str, bool], act: Callable[[Any], Any] | None
) -> Seen:
    width, scheme, script = how
    context = chromium.new_context(
        viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, java_script_enabled=script
    )
    page, errors, requests = context.new_page(), [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("requestfailed", lambda request: errors.append(f"{_short(request.url)}: {request.failure}"))
    page.on("request", lambda request: requests.append(_short(request.url)))
    page.goto(file.absolute().as_uri())
    answer = act(page) if act else None
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{file.stem}_{width}_{scheme}{'' if script else '_noscript'}.png"
    page.screenshot(path=picture, full_page=True)
    wide = page.evaluate(WHAT_DOES_NOT_FIT)
    context.close()
    inside = ("data:", "blob:", file.absolute().as_uri())
    return Seen(errors, [address for address in requests if not address.startswith(inside)], wide, picture, answer)


def _short(address: str) -> str:
    return address[:200]
