"""A person at the Prefect UI: a real browser."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import UUID

CHROMIUM: Final = shutil.which("chromium")
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
PATIENCE_MS: Final = 90_000
TRIES: Final = 6


def approve(ui: str, run_id: UUID, by: str, reason: str, folder: Path) -> Path:
    """Open a waiting release, fill in the form of its Resume button, and submit; answers the picture of the form.

    Args:
        ui: Where the UI is, without a slash at the end.
        run_id: The run that waits.
        by: Who decides.
        reason: Why.
        folder: For pictures.
    """
    from playwright.sync_api import Error, sync_playwright
    from playwright.sync_api import TimeoutError as TooLate

    picture = folder / f"approval-{run_id}.png"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(PATIENCE_MS)
        try:
            page.goto(f"{ui}/runs/flow-run/{run_id}")
            page.get_by_role("button", name="Open menu").first.click()
            page.get_by_role("menuitem", name="Resume").click()
            form = page.get_by_role("dialog")
            form.get_by_label("By", exact=True).fill(by)
            form.get_by_label("Reason", exact=True).fill(reason)
            page.screenshot(path=picture)
            for _ in range(TRIES):
                # The form checks what was filled in a moment later, and says nothing to a click before that.
                form.get_by_role("button", name="Resume").click()
                with suppress(TooLate):
                    form.wait_for(state="hidden", timeout=5_000)
                    break
            form.wait_for(state="hidden", timeout=1_000)
        except Error:
            page.screenshot(path=picture.with_suffix(".failed.png"))
            raise
        browser.close()
    return picture
