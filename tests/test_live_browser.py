"""The live page in a real headless Chromium: what is drawn lies where the poses say, controls act, it comes back, and
nothing of it leaves the machine."""

import shutil
import time
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra 'live' is not installed")
pytest.importorskip("starlette", reason="the extra 'live' is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
pytest.importorskip("cv2")

from sdk.live.mailbox import IN_FLIGHT  # noqa: E402
from tests.support.live import AGES_S, TOKEN, Camera, served  # noqa: E402
from tests.support.threads import wait_for  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")
DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
WAIT_MS = 60_000  # a busy machine's; what comes is not waited for longer

# The middles of all that is drawn apart on the overlay, in canvas pixels: x, y of each blob's bounds.
BLOBS = """() => {
  const canvas = document.querySelector('.overlay'), { width, height } = canvas;
  const alpha = canvas.getContext('2d').getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 3);
  const seen = new Uint8Array(width * height), found = [];
  for (let start = 0; start < seen.length; start++) {
    if (seen[start] || !alpha[start]) continue;
    let [x, y, weight] = [0, 0, 0];
    const stack = [start];
    seen[start] = 1;
    while (stack.length) {
      const at = stack.pop(), column = at % width;
      x += alpha[at] * (column + 0.5); y += alpha[at] * (Math.floor(at / width) + 0.5); weight += alpha[at];
      for (const next of [at - 1, at + 1, at - width, at + width]) {
        if (next < 0 || next >= seen.length || seen[next] || !alpha[next]) continue;
        if (Math.abs((next % width) - column) > 1) continue;
        seen[next] = 1;
        stack.push(next);
      }
    }
    found.push([x / weight, y / weight]);
  }
  return { found, width, height };
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


def is_complaint(message):
    """What a page should not say. That pictures are read back is these tests' doing."""
    return message.type in ("error", "warning") and "getImageData" not in message.text


@contextmanager
def opened(browser, url, *, quiet=True, **options):
    """A page that is open and shows frames; it ends with a check that nothing was said and nothing left the machine."""
    context = browser.new_context(**{**DESK, **options})
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if is_complaint(message) else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    origin = url.split("://")[1].split("/")[0]
    assert [each for each in asked if each.split("://")[1].split("/")[0] != origin] == []
    if quiet:
        assert said == []


def until(page, met):
    """Ask again and again; playwright's own waiting needs `eval`, which the page forbids."""
    deadline = time.monotonic() + WAIT_MS / 1e3
    while not page.evaluate(met):
        assert time.monotonic() < deadline, f"it did not come: {met}"
        page.wait_for_timeout(30)


def shows_frames(page):
    until(page, "document.querySelector('.screen')?.dataset.frame > 2")


def has_state(page, state):
    page.wait_for_selector(f'#status[data-state="{state}"]')


PICKED = """document.querySelectorAll('.persons button[aria-pressed="true"]').length === {}"""


def stop(page, camera):
    """Stop, and wait until the page shows the last frame that there is; none comes until the camera goes on."""
    page.click("#run")
    has_state(page, "stopped")
    camera.hold()
    number = camera.last[0].frame.number
    until(page, f"document.querySelector('.screen').dataset.frame === '{number}'")
    return camera.last[0].poses


@pytest.mark.parametrize("options", [DESK, PHONE], ids=["desk", "phone"])
def test_joints_lie_where_the_poses_say(browser, options):
    camera = Camera(kind="dots", size_hw=(480, 640))
    with served(camera.watch()) as server, opened(browser, server.url, reduced_motion="reduce", **options) as page:
        shows_frames(page)
        poses = stop(page, camera)
        drawn = page.evaluate(BLOBS)
        scale = drawn["width"] / 640
        found = np.array(drawn["found"]) / scale - 0.5  # a pixel's number is its middle's
        assert drawn["height"] == pytest.approx(480 * scale, abs=1)
        label = np.array([poses.keypoints[0, :, 0].mean(), poses.keypoints[0, :, 1].min()])
        away = np.linalg.norm(found[:, None] - poses.keypoints[0][None], axis=2)
        assert away.min(axis=0).max() < 1.0, "each joint is drawn within a pixel of the frame"
        strangers = found[away.min(axis=1) >= 1.0]
        assert len(strangers) <= 1 and (np.abs(strangers - label) < 60).all(), "and nothing else but the id"


def test_limbs_and_joints_have_the_colours_of_their_side(browser):
    camera = Camera(size_hw=(240, 320))
    camera.clip = camera.clip[:1]  # later the left wrist passes before the hip
    with served(camera.watch()) as server, opened(browser, server.url) as page:
        shows_frames(page)
        poses = stop(page, camera)
        pixel = """([x, y]) => { const canvas = document.querySelector('.overlay'), scale = canvas.width / 320;
          return [...canvas.getContext('2d').getImageData((x + 0.5) * scale, (y + 0.5) * scale, 1, 1).data]; }"""
        for name, colour in (("left_wrist", (255, 139, 46)), ("right_ankle", (56, 156, 255)), ("top_head", (235,) * 3)):
            joint = poses.skeleton.joints.index(name)
            seen = page.evaluate(pixel, poses.keypoints[0, joint].tolist())
            assert seen == [*colour, 255], name


def test_controls_act(browser, tmp_path):
    camera = Camera(cameras=2)
    watch = camera.watch(tmp_path)
    with served(watch) as server, opened(browser, server.url) as page:
        shows_frames(page)
        assert page.locator(".tile").count() == 2
        poses = stop(page, camera)
        ink = "document.querySelector('.overlay').getContext('2d').getImageData(0, 0, 9999, 9999).data.some((v) => v)"
        for layer in ("skeleton", "trails"):
            page.click(f'[data-layer="{layer}"]')
        nothing_but_labels = page.evaluate(ink)
        page.evaluate("document.querySelector('#threshold').value = 1")
        page.dispatch_event("#threshold", "input")
        assert nothing_but_labels and not page.evaluate(ink), "above every score nothing is drawn"
        page.evaluate("document.querySelector('#threshold').value = 0.3")
        page.dispatch_event("#threshold", "input")
        for layer in ("boxes", "scores", "skeleton"):
            page.click(f'[data-layer="{layer}"]')
            assert page.evaluate(ink)
            assert page.get_attribute(f'[data-layer="{layer}"]', "aria-pressed") == "true"
        page.evaluate("document.querySelector('#smoothing').value = 40")
        page.dispatch_event("#smoothing", "input")
        until(page, "document.querySelector('#smoothing-value').textContent === '40 %'")
        joint = poses.skeleton.joints.index("right_wrist")
        bounds = page.locator(".screen").first.bounding_box()
        x, y = (poses.keypoints[0, joint] + 0.5) * bounds["width"] / 320 + [bounds["x"], bounds["y"]]
        page.mouse.move(x + 2, y + 2)
        until(page, "document.querySelector('.tip').textContent.includes('right wrist 0.90, person 1')")
        page.mouse.click(x, y)
        until(page, PICKED.format(1))
        page.locator(".screen").first.focus()
        page.keyboard.press("Escape")
        until(page, PICKED.format(0))
        page.keyboard.press("ArrowRight")
        until(page, PICKED.format(1))
        page.keyboard.press("Space")
        has_state(page, "live")
        camera.go_on()
        page.keyboard.press("r")
        page.wait_for_selector('#record[aria-pressed="true"]')
        wait_for(lambda: len(list(tmp_path.glob(".*.mp4*"))) == 2)
        page.click("#record")
        until(page, "document.querySelector('#notice').textContent.startsWith('Recorded')")
    assert watch._steady.strength == 0.4
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jsonl", ".jsonl", ".mp4", ".mp4"]


def test_it_comes_back_with_the_server(browser):
    with ExitStack() as first:
        server = first.enter_context(served(Camera().watch()))
        with opened(browser, server.url, quiet=False) as page:  # Chromium itself complains of a server that is gone
            shows_frames(page)
            first.close()
            has_state(page, "offline")
            until(page, "document.querySelector('#run').disabled")
            with served(Camera(fps=60).watch(), port=server.port):
                has_state(page, "live")
                until(page, "!document.querySelector('#run').disabled")
                before = page.get_attribute(".screen", "data-frame")
                until(page, f"document.querySelector('.screen').dataset.frame !== '{before}'")


def test_a_token_comes_in_the_fragment_and_goes_out_of_sight(browser):
    with served(Camera().watch(), token=TOKEN) as server:
        with opened(browser, server.url) as page:
            shows_frames(page)
            assert page.url == f"http://127.0.0.1:{server.port}/"
            page.reload()
            shows_frames(page)
        with opened(browser, f"http://127.0.0.1:{server.port}/") as page:
            page.fill("#token", TOKEN)
            page.click("#key button")
            shows_frames(page)
            assert page.is_hidden("#key")


# Eighteen more viewers in Chromium that answer as the page does, and one that takes a frame and falls silent.
MORE_VIEWERS = """() => {
  const address = `ws://${location.host}/watch`;
  window.seen = Array.from({ length: 19 }, () => 0);
  window.sockets = window.seen.map((_, index) => {
    const socket = new WebSocket(address, ['sdk-live.1']);
    socket.binaryType = 'arraybuffer';
    socket.onclose = (event) => (window.left = [index, event.code]);
    socket.onmessage = ({ data }) => {
      if (typeof data === 'string') return;
      window.seen[index]++;
      if (index) socket.send(JSON.stringify({ do: 'arrived', camera: 0 }));
    };
    return socket;
  });
}"""


def test_twenty_viewers_look_and_one_that_stops_reading_slows_nobody(browser, monkeypatch):
    monkeypatch.setattr("sdk.live.application.SILENT_S", AGES_S / 2)
    with served(Camera().watch(), viewers=20) as server, opened(browser, server.url) as page:
        shows_frames(page)
        page.evaluate(MORE_VIEWERS)
        until(page, "window.seen.slice(1).every((frames) => frames > 5)")
        assert page.evaluate("window.seen[0]") == IN_FLIGHT and not page.evaluate("window.left")
        server.outwait_the_silent()
        until(page, "window.left")
        assert page.evaluate("window.left") == [0, 4408]
        wait_for(lambda: len(server.watch._viewers) == 19)
        page.evaluate("window.before = [...window.seen]")
        until(page, "window.seen.every((frames, index) => !index || frames > window.before[index] + 2)")
        assert page.evaluate("window.seen[0]") == IN_FLIGHT and server.watch._viewers.slow == 1


# What a screen reader is told, and what an eye can read: names of all that can be used, and contrast of all text.
UNNAMED = """() => [...document.querySelectorAll('button, input, [tabindex="0"], canvas:not([aria-hidden])')]
  .filter((each) => each.offsetParent && !each.closest('[aria-hidden="true"]'))
  .filter((each) => !(each.textContent.trim() || each.getAttribute('aria-label') || each.labels?.length))
  .map((each) => each.outerHTML)"""
PALE = """() => {
  const line = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((v) => line(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  const speaks = (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  return [...document.querySelectorAll('body *')]
    .filter((each) => each.offsetParent && speaks(each) && !each.closest('.tile') && !each.disabled)
    .map((each) => {
      const [a, b] = [light(getComputedStyle(each).color), light(ground(each))];
      return [each.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    })
    .filter(([, contrast]) => contrast < 4.5);
}"""


@pytest.mark.parametrize(("scheme", "options"), [("light", DESK), ("dark", PHONE)], ids=["light", "dark phone"])
def test_everything_has_a_name_and_can_be_read(browser, scheme, options):
    look = {**options, "color_scheme": scheme}
    with served(Camera(fps=20).watch()) as server, opened(browser, server.url, **look) as page:
        shows_frames(page)
        page.wait_for_selector("#stages tr")
        assert page.evaluate(UNNAMED) == []
        assert page.evaluate(PALE) == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out sideways"
