"""Draw a report as the README shows it: the upper part of the page, as a PNG.

Example::

    alexnet report runs/cifar10-quick-1 --out report.html
    python docs/report.py report.html docs/images/report.png
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, BELOW = 1080, 560  # pixels; those from the curves' heading on
COLOURS = 128  # few enough for a small file, too many to see it


def main() -> None:
    """Draw the page that the first argument names into the file of the second."""
    page_file, out = map(Path, sys.argv[1:])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": 1000})
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector("html[data-charts]")
        curves = page.locator("#curves h2").bounding_box()
        assert curves is not None
        page.set_viewport_size({"width": WIDTH, "height": int(curves["y"]) + BELOW})
        chart = page.locator("#chart-errors").bounding_box()
        assert chart is not None
        across, down = chart["x"] + 0.7 * chart["width"], chart["y"] + 150
        page.wait_for_timeout(500)  # until the chart is drawn, so that it answers
        page.mouse.move(across - 9, down)
        page.mouse.move(across, down)
        page.locator(".tip:not([hidden])").first.wait_for()
        picture = page.screenshot()
        browser.close()
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out, optimize=True)


if __name__ == "__main__":
    main()
