"""What a person sees of a page."""

from __future__ import annotations

from playwright.sync_api import Browser

import dn2


def see(browser: Browser, report: dn2.Report | dn2.Cleaning) -> dict[str, object]:
    """Open a page and return what is on the page, and all that went wrong."""
    page = browser.new_page()
    troubles: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url.partition(":")[0]))
    page.goto(report.html)
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    seen = {
        "troubles": troubles,
        "schemes": set(requests),
        "widths": widths,
        "counts": [int(count) for count in page.locator(".counts b").all_inner_texts()[:4] if count.isdigit()],
        "text": page.locator("body").inner_text(),
        "scripts": page.locator("script").count(),
        "corners": page.eval_on_selector_all(
            "figure svg path", "paths => Math.max(0, ...paths.map(path => path.getAttribute('d').split('L').length))"
        ),
        "cards": page.locator(".card").count(),
    }
    page.close()
    return seen
