"""Drives Playwright for Python, one JSON line a step.

    tests/clients/.venv/bin/python tests/clients/playwright_py.py CDP_URL SITE_URL [--only step,step]

Through the pool and on a Chromium of its own the results are the same.
"""

import json
import pathlib
import re
import tempfile

from playwright.sync_api import Error, sync_playwright

from steps import Steps, parameters, png_size, stable

STEPS = {}


def step(function):
    STEPS[function.__name__.replace("_", "-")] = function
    return function


class Run:
    """What a step works with; the contexts that it makes are closed after it."""

    def __init__(self, browser, site, folder, timeout):
        self.browser, self.site, self.folder, self._timeout = browser, site, folder, timeout
        self._contexts = []

    def context(self, **settings):
        context = self.browser.new_context(**settings)
        context.set_default_timeout(self._timeout)
        self._contexts.append(context)
        return context

    def page(self, path="/title.html", **settings):
        page = self.context(**settings).new_page()
        page.goto(self.site + path)
        return page

    def end(self):
        for context in self._contexts:
            context.close()


# Before any other step has opened or closed a page in the default context.
@step
def first_page(run):
    context = run.browser.contexts[0]
    page = context.pages[0]
    begun = {"url": page.url, "pages": len(context.pages)}
    page.goto(f"{run.site}/title.html")
    title = page.title()
    second = context.new_page()
    both = len(context.pages)
    page.close()
    left = len(context.pages)
    second.close()
    return {"begun": begun, "title": title, "both": both, "left": left, "none": len(context.pages)}


@step
def default_context(run):
    context = run.browser.contexts[0]
    page = context.new_page()
    page.goto(f"{run.site}/title.html")
    title = page.title()
    page.close()
    return {"title": title, "contexts": len(run.browser.contexts)}


@step
def goto_redirect(run):
    page = run.context().new_page()
    response = page.goto(f"{run.site}/redirect?n=2")
    return {"status": response.status, "url": page.url, "from": response.request.redirected_from.url}


@step
def contexts_are_isolated(run):
    writer, reader = run.page("/storage.html"), run.page("/storage.html")
    writer.evaluate("write('one')")
    found = reader.evaluate("read()")
    del found["overrides"]
    return found


@step
def cookies(run):
    context = run.context()
    context.add_cookies([{"name": "plain", "value": "1", "url": run.site}])
    page = context.new_page()
    page.goto(f"{run.site}/title.html")
    seen = page.evaluate("document.cookie")
    context.clear_cookies()
    return {"seen": seen, "left": context.cookies()}


@step
def evaluate(run):
    page = run.page()
    return page.evaluate("([a, b]) => ({ sum: a + b, title: document.title })", [2, 3])


@step
def form(run):
    page = run.page("/form.html")
    page.get_by_label("Name").fill("Ada")
    page.get_by_label("Colour").select_option("b")
    page.get_by_label("I agree").check()
    page.get_by_role("button", name="Send").click()
    return json.loads(page.locator("#sent").text_content())


@step
def keyboard(run):
    page = run.page("/form.html")
    page.locator("#notes").press_sequentially("Hi")
    page.keyboard.press("Shift+Enter")
    return page.locator("#keys").text_content()


@step
def expose_function(run):
    page = run.context().new_page()
    page.expose_function("double", lambda n: n * 2)
    page.goto(f"{run.site}/title.html")
    return page.evaluate("double(21)")


@step
def popups(run):
    page = run.page("/popups.html")
    titles = []
    for name in ("opener", "noopener"):
        with page.context.expect_page() as opened:
            page.click(f"#{name}")
        opened.value.wait_for_load_state()
        titles.append(opened.value.title())
    return titles


@step
def frames(run):
    page = run.page("/frames.html")
    outer = page.frame_locator("iframe[name=localhost]")
    inner = outer.frame_locator("iframe[name=inner]")
    return [outer.locator("#who").text_content(), inner.locator("#who").text_content()]


@step
def workers(run):
    page = run.context().new_page()
    with page.expect_worker() as started:
        page.goto(f"{run.site}/workers.html?dedicated")
    return started.value.evaluate("self.greeting")


@step
def service_worker(run):
    context = run.context()
    page = context.new_page()
    page.goto(f"{run.site}/workers.html?service")
    page.get_by_text("answered by the service worker").wait_for()
    return [worker.url for worker in context.service_workers]


@step
def download(run):
    page = run.page("/files.html")
    with page.expect_download() as begun:
        page.click("#download")
    path = pathlib.Path(run.folder) / "downloaded.txt"
    begun.value.save_as(path)
    return {"name": begun.value.suggested_filename, "size": path.stat().st_size}


@step
def upload(run):
    page = run.page("/files.html")
    page.set_input_files("#file", {"name": "one.txt", "mimeType": "text/plain", "buffer": b"one"})
    page.click("#send")
    page.wait_for_url("**/upload")
    return json.loads(page.locator("body").text_content())["files"]


@step
def dialogs(run):
    page = run.page("/dialogs.html")
    seen = []

    def answer(dialog):
        seen.append([dialog.type, dialog.message])
        dialog.accept("Ada")

    page.on("dialog", answer)
    results = []
    for name in ("alert", "confirm", "prompt"):
        page.click(f"#{name}")
        results.append(page.evaluate("result"))
    return {"seen": seen, "results": results}


@step
def route(run):
    page = run.context().new_page()
    page.route("**/visit/1/data.json", lambda route: route.fulfill(json={"text": "from the client"}))
    page.goto(f"{run.site}/visit/1")
    page.get_by_text("from the client").wait_for()
    return page.locator("#fetched").text_content()


@step
def emulation(run):
    page = run.page(locale="de-DE", timezone_id="Asia/Tokyo", color_scheme="dark", viewport={"width": 640, "height": 480})
    return page.evaluate(
        "[navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone, innerWidth,"
        " matchMedia('(prefers-color-scheme: dark)').matches]"
    )


@step
def permissions(run):
    page = run.page(permissions=["geolocation"], geolocation={"latitude": 52.5, "longitude": 13.4})
    return page.evaluate(
        "new Promise((done) => navigator.geolocation.getCurrentPosition((p) => done([p.coords.latitude, p.coords.longitude])))"
    )


@step
def console_and_errors(run):
    page = run.context().new_page()
    lines = []
    page.on("console", lambda message: lines.append(f"{message.type}: {message.text}"))
    with page.expect_event("pageerror") as thrown:
        page.goto(f"{run.site}/console.html")
    return {"thrown": thrown.value.message, "lines": lines}


@step
def screenshot(run):
    page = run.page("/tall.html", viewport={"width": 800, "height": 500})
    return {"viewport": png_size(page.screenshot()), "element": png_size(page.locator("#box").screenshot())}


@step
def pdf(run):
    data = run.page("/tall.html").pdf(format="A4")
    return {"header": data[:5].decode(), "pages": len(re.findall(rb"/Type\s*/Page\b", data))}


@step
def cdp_session(run):
    page = run.page()
    session = page.context.new_cdp_session(page)
    try:
        session.send("Runtime.noSuchMethod")
    except Error as error:
        refused = error.message.split("\n")[0]
    return {"value": session.send("Runtime.evaluate", {"expression": "6 * 7"})["result"]["value"], "refused": refused}


def main():
    options = parameters()
    steps = Steps(options.only)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as scratch:
        connected = []
        steps.run("connect", lambda: connected.append(playwright.chromium.connect_over_cdp(options.cdp)))
        for browser in connected:
            for name, function in STEPS.items():
                if not steps.wants(name):
                    continue

                def one(function=function):
                    run = Run(browser, options.site, options.dir or scratch, options.timeout)
                    try:
                        return stable(function(run), options.site)
                    finally:
                        run.end()

                steps.run(name, one)
            steps.run("close", browser.close)
    steps.finish()


if __name__ == "__main__":
    main()
