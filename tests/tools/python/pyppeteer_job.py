"""pyppeteer: speaks of sessions that are not flattened only."""

import asyncio

from job import FORM, MARK, NAME, SENT, WS, report
from pyppeteer import connect


async def main():
    browser = await connect(browserWSEndpoint=WS)
    page = (await browser.pages())[0]
    await page.goto(FORM)
    marks = await page.evaluate(MARK, force_expr=True)
    await page.type("#name", NAME)
    await page.click("#send")
    report(title=await page.title(), sent=await page.evaluate(SENT, force_expr=True), marks=marks, picture=await page.screenshot())
    await browser.disconnect()


asyncio.run(main())
