"""zendriver: finds the browser by /json/version, and each tab by its own address."""

import asyncio

import zendriver
from job import FILES, FOLDER, FORM, HOST, MARK, NAME, PORT, SENT, downloaded, report


async def main():
    browser = await zendriver.start(host=HOST, port=PORT)
    tab = await browser.get(FORM)
    marks = await tab.evaluate(MARK)
    await (await tab.select("#name")).send_keys(NAME)
    await (await tab.select("#send")).mouse_click()
    sent = await tab.evaluate(SENT)
    title = await tab.evaluate("document.title")
    picture = await tab.screenshot_b64(format="png")

    await tab.get(FILES)
    await tab.set_download_path(FOLDER)
    await (await tab.select("#download")).click()
    report(title=title, sent=sent, marks=marks, picture=picture, file=downloaded(FOLDER / "report.txt"))
    await browser.stop()


asyncio.run(main())
