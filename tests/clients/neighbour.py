"""One of several clients in one Chromium, as neighbour.mjs is, in Python.

    tests/clients/.venv/bin/python tests/clients/neighbour.py CDP_URL SITE_URL --name NAME
"""

import argparse
import json
import sys

from playwright.sync_api import sync_playwright

MARK = """own => {
  document.cookie = `who=${own}; Path=/`;
  localStorage.setItem('who', own);
  setInterval(() => fetch(`/echo?beat=${own}`), 100);
}"""


def say(value):
    print(json.dumps(value), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cdp")
    parser.add_argument("site")
    parser.add_argument("--name", required=True)
    options = parser.parse_args()

    def at(words):
        return f"{options.site}/title/{options.name}-{words}"

    with sync_playwright() as playwright:
        browser = playwright.chromium.connect_over_cdp(options.cdp)
        session = browser.new_browser_cdp_session()
        # The page that every lease begins with.
        page = browser.contexts[0].pages[0]
        page.goto(at("page"))
        page.evaluate(MARK, options.name)
        with page.expect_popup():
            page.evaluate("url => void window.open(url)", at("popup"))
        other = browser.new_context().new_page()
        other.goto(at("second"))
        other.evaluate(MARK, options.name)
        say({})

        def look():
            targets = session.send("Target.getTargets")["targetInfos"]
            return {
                "titles": [held.title() for context in browser.contexts for held in context.pages],
                "targets": [target["title"] for target in targets if target["type"] == "page"],
                "cookies": [cookie["value"] for context in browser.contexts for cookie in context.cookies()],
                "storage": page.evaluate("() => ({ ...localStorage })"),
            }

        def close():
            browser.close()
            return {}

        for line in sys.stdin:
            say({"look": look, "close": close}[line.strip()]())


main()
