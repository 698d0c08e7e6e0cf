"""Takes the README's picture of the demo, docs/images/demo.png, from the page itself.

Run from the project's root, with Chromium, Playwright and the extra [demo]: python docs/images/demo.py
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from es4r_toolkit.demo.models import offer
from es4r_toolkit.demo.serving import find_examples, serving

PICTURE = Path(__file__).with_suffix(".png")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Play an example, and keep what the page shows then."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=Path, help="manifest; shared/data/avamerg_demo where left out")
    parser.add_argument("--example", type=int, default=2, help="which of its dialogues, from 1")
    parser.add_argument("--width", type=int, default=1440, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=1010, help="of the window, in pixels; 0 for the whole page")
    parser.add_argument("--dark", action="store_true", help="as who prefers dark pages sees it")
    parser.add_argument("--output", type=Path, default=PICTURE)
    options = parser.parse_args()
    examples, _ = find_examples(options.examples)
    if len(examples) < options.example:
        print("error: there is no such example; name a manifest with --examples", file=sys.stderr)
        return 1
    models = offer([])
    models[0].warm_up()
    with serving(models, examples) as address, sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, BROWSERS))),
            args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
        )
        window = {"width": options.width, "height": options.height or 900}
        page = chromium.new_page(viewport=window, color_scheme="dark" if options.dark else "light")
        page.goto(address)
        page.locator(".example").nth(options.example - 1).click()
        page.locator(".why .card").first.wait_for(timeout=120_000)
        page.wait_for_timeout(500)
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=options.output, full_page=not options.height)
        chromium.close()
    print(f"{options.output}  {options.output.stat().st_size // 1000} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
