"""Many sessions, some at a time: the Python twin of load.mjs, with the same lines.

    tests/clients/.venv/bin/python tests/clients/load.py CDP_URL SITE_URL
        [--sessions 100] [--concurrency 8] [--context default|new] [--timeout MS]
"""

import argparse
import asyncio
import json
import sys
import time
import uuid

from playwright.async_api import async_playwright

from steps import png_size

MARK = """(own) => {
  const found = [document.cookie, ...Object.entries(localStorage).map((entry) => entry.join('='))].filter(Boolean);
  document.cookie = `mark=${own}; Max-Age=3600; Path=/`;
  localStorage.setItem('mark', own);
  return found;
}"""


class Leak(Exception):
    """Something of another session was found."""


async def session(playwright, options):
    browser = await playwright.chromium.connect_over_cdp(options.cdp)
    try:
        context = await browser.new_context() if options.context == "new" else browser.contexts[0]
        leaks = [page.url for page in context.pages if page.url != "about:blank"]
        leaks += [f"{cookie['name']}={cookie['value']}" for cookie in await context.cookies()]
        page = await context.new_page()
        await page.goto(f"{options.site}/title.html")
        if await page.title() != "A page with a title":
            raise ValueError("the wrong title")
        mark = str(uuid.uuid4())
        leaks += await page.evaluate(MARK, mark)
        if leaks:
            raise Leak(" ".join(leaks))
        await page.reload()
        kept = await page.evaluate("[document.cookie, localStorage.getItem('mark')]")
        if kept != [f"mark={mark}", mark]:
            raise ValueError(f"its own mark is gone: {kept}")
        png_size(await page.screenshot())
        await page.close()
        if options.context == "new":
            await context.close()
    finally:
        await browser.close()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cdp")
    parser.add_argument("site")
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--context", choices=["default", "new"], default="default")
    parser.add_argument("--timeout", type=int, default=20000)
    options = parser.parse_args()
    numbers = iter(range(options.sessions))
    took, failed, leaks = [], 0, 0

    async def worker(playwright):
        nonlocal failed, leaks
        for number in numbers:
            begun = time.monotonic()
            line = {"session": number, "ok": True}
            try:
                await asyncio.wait_for(session(playwright, options), options.timeout / 1000)
            except Exception as error:
                failed += 1
                leaks += isinstance(error, Leak)
                line |= {"ok": False, "error": f"{type(error).__name__}: {error}"}
            line["ms"] = round((time.monotonic() - begun) * 1000)
            took.append(line["ms"])
            print(json.dumps(line), flush=True)

    begun = time.monotonic()
    async with async_playwright() as playwright:
        await asyncio.gather(*(worker(playwright) for _ in range(options.concurrency)))
    took.sort()

    def percentile(p):
        return took[min(len(took) - 1, int(len(took) * p))]

    summary = {"client": "playwright-python", "sessions": options.sessions, "ok": options.sessions - failed}
    summary |= {"failed": failed, "leaks": leaks, "p50": percentile(0.5), "p99": percentile(0.99)}
    print(json.dumps(summary | {"seconds": round(time.monotonic() - begun, 3)}))
    sys.exit(0 if failed == 0 else 1)


if __name__ == "__main__":
    asyncio.run(main())
