"""Pages as a browser draws them, wherever a headless Chromium is on the path."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import PIL.Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def screenshot(page: Path, width: int, height: int) -> list[PIL.Image.Image]:
    """The page as the first browser found draws it; nothing where there is none: parsers check the page there too.

    Raises: CalledProcessError, TimeoutExpired or FileNotFoundError if a browser is there and draws nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return []
    with tempfile.TemporaryDirectory() as profile:
        shot = Path(profile) / "shot.png"
        options = (f"--user-data-dir={profile}", f"--window-size={width},{height}", f"--screenshot={shot}")
        subprocess.run([browser, *FLAGS, *options, page.as_uri()], check=True, capture_output=True, timeout=240)
        with PIL.Image.open(shot) as image:
            return [image.copy()]
