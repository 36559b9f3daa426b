"""pydoll: one socket for the browser, and one for each tab."""

import asyncio

from job import FILES, FOLDER, FORM, MARK, NAME, SENT, WS, downloaded, report
from pydoll.browser.chromium import Chrome


async def main():
    browser = Chrome()
    tab = await browser.connect(WS)

    async def evaluate(script):
        answer = await tab.execute_script(script, return_by_value=True)
        return answer["result"]["result"]["value"]

    await tab.go_to(FORM)
    marks = await evaluate(MARK)
    await (await tab.find(id="name")).type_text(NAME)
    await (await tab.find(id="send")).click()
    sent = await evaluate(SENT)
    title = await tab.title()
    picture = await tab.take_screenshot(as_base64=True)

    await tab.go_to(FILES)
    async with tab.expect_download(keep_file_at=FOLDER / "downloads") as download:
        await (await tab.find(id="download")).click()
        await download.wait_finished()
    report(title=title, sent=sent, marks=marks, picture=picture, file=downloaded(download.file_path))
    await browser.close()


asyncio.run(main())
