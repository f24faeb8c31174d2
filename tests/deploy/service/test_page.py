"""The page in a real browser, in light and dark, by mouse and by keyboard; a stand-in judges."""

import shutil
import threading
import time

import pytest

from pirn_jax.errors import PirnError
from tests.deploy.service.stand_in import Brightness, app_of, make, png
from tests.scans import layouts

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader")
KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield found
        found.close()


class InAZone(Brightness):
    """Of what is hot the verdict marks the left quarter alone, as rules and zones may."""

    def _one(self, part):
        found = super()._one(part)
        if not isinstance(found, PirnError):
            mask = found.shown.mask
            mask[:, mask.shape[1] // 4 :] = False
        return found


@pytest.fixture
def service(tmp_path):
    import uvicorn

    parts = make(tmp_path / "state", judge=InAZone(), keys=(KEY.encode(),), capacity=4)
    config = uvicorn.Config(app_of(parts), port=0, log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/", parts
    server.should_exit = True
    thread.join()


@pytest.fixture
def files(tmp_path):
    """A bright part with points, a dark photograph, and a file that is none."""
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "bright.png").write_bytes(png(220, layouts.SIZE))
    (folder / "bright.tiff").write_bytes(layouts.tiff_bytes(layouts.points()))
    (folder / "dark_rgb.png").write_bytes(png(40, layouts.SIZE))
    (folder / "junk.png").write_bytes(b"<html>")
    return sorted(map(str, folder.iterdir()))


HALVES = """() => {
  const { width, height } = document.getElementById("picture");
  const at = document.getElementById("picture").getContext("2d");
  return [0, width / 2].map((x) => at.getImageData(x, 0, width / 2, height).data.join());
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_shift_at_the_page(browser, service, files, scheme):
    url, parts = service
    context = browser.new_context(viewport={"width": 1360, "height": 820}, color_scheme=scheme)
    page = context.new_page()
    elsewhere, broken = [], []
    page.on("request", lambda request: request.url.startswith((url, "blob:", "data:"))
            or elsewhere.append(request.url))  # fmt: skip
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(url)

    # A key is asked for, once.
    page.locator("#key-value").fill(KEY)
    page.locator("#ask-key button").click()
    page.locator("#model:not(:empty)").wait_for()

    # Three parts are sent; one is no picture, and that is said.
    page.set_input_files("#files", files)
    page.locator("#sending.wrong").wait_for()
    assert "junk: not a readable PNG" in page.locator("#sending").inner_text()
    page.locator("#list li").nth(2).wait_for()
    assert page.locator("#list .name").all_inner_texts() == ["junk", "dark", "bright"]
    assert page.locator("#label").inner_text() == "Not judged"

    # By keyboard to the bright one; its picture is drawn, and outlined is what the verdict marks;
    # or all that is hot, by a threshold that is tried.
    page.locator("h1").click()
    page.keyboard.press("ArrowDown")
    page.locator("#label.ok").wait_for()
    page.keyboard.press("ArrowDown")
    page.locator("#label.not_ok").wait_for()
    page.locator("[data-layer=surface]:enabled").wait_for()
    outlined = page.evaluate(HALVES)
    page.keyboard.press("o")
    plain = page.evaluate(HALVES)
    page.keyboard.press("o")
    assert [one == other for one, other in zip(outlined, plain, strict=True)] == [False, True]
    assert "0 of 3 good parts" in page.locator("#what-if").inner_text()
    page.locator("#threshold").fill("0")
    assert "3 of 3 good parts of the calibration (100 %)" in page.locator("#what-if").inner_text()
    assert page.evaluate(HALVES)[1] != plain[1]
    page.locator("#threshold").fill("1000")
    assert "would be OK" in page.locator("#what-if").inner_text()

    # Its surface is drawn: not all of one colour.
    page.locator("h1").click()
    page.keyboard.press("3")
    page.locator("#surface:visible").wait_for()
    shot = page.locator("#surface").screenshot()
    page.locator("#surface").press("ArrowLeft")
    assert page.locator("#surface").screenshot() != shot
    assert page.locator("[data-layer=normals]").is_disabled()  # the stand-in has none

    # Marked as a false alarm by key, filtered, taken back by mouse.
    page.locator("h1").click()
    page.keyboard.press("f")
    page.locator("#marks [aria-pressed=true]").wait_for()
    assert [one["key"] for one in parts.journal.results(mark="false_alarm")] == ["bright"]
    page.locator("#marked").select_option("false_alarm")
    page.locator("#list li").nth(1).wait_for(state="detached")
    page.locator("[data-mark=false_alarm]").click()
    page.locator("#marks [aria-pressed=true]").wait_for(state="detached")
    assert parts.journal.results(mark="false_alarm") == []

    page.goto(f"{url}docs")
    page.locator("article").nth(5).wait_for()
    assert "-F rgb=@part.png" in page.locator("main").inner_text()
    assert elsewhere == broken == []
    context.close()


def test_what_is_sent_elsewhere_shows_up_by_itself(browser, service):
    """And a part's name is text, whatever is in it."""
    import urllib.request

    url, _ = service
    page = browser.new_page()
    page.add_init_script(f"sessionStorage.setItem('key', '{KEY}')")
    page.goto(url)
    page.locator("#model:not(:empty)").wait_for()
    name = "<img src=x onerror=alert(1)>"
    body = (
        f'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\n{name}\r\n--x\r\n'
        'Content-Disposition: form-data; name="rgb"; filename="a.png"\r\n\r\n'
    ).encode() + png() + b"\r\n--x--\r\n"  # fmt: skip
    headers = {"Content-Type": "multipart/form-data; boundary=x", "X-API-Key": KEY}
    urllib.request.urlopen(urllib.request.Request(f"{url}v1/judge", body, headers)).close()
    page.locator("#label.not_ok").wait_for(timeout=10_000)
    assert page.locator("#list .name").inner_text() == name
    assert page.locator("#list img").count() == 0
    page.close()
