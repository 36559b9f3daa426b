"""scrapy-playwright: a spider whose pages are opened in a browser of the pool, by `PLAYWRIGHT_CDP_URL`."""

from job import FORM, MARK, NAME, WS, report
from scrapy import Request, Spider
from scrapy.crawler import CrawlerProcess
from scrapy_playwright.page import PageMethod

HANDLER = "scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler"


class Form(Spider):
    name = "form"

    async def start(self):
        methods = [
            PageMethod("evaluate", MARK),
            PageMethod("fill", "#name", NAME),
            PageMethod("click", "#send"),
            PageMethod("screenshot"),
        ]
        yield Request(FORM, meta={"playwright": True, "playwright_page_methods": methods})

    def parse(self, response):
        marks, *_, picture = response.meta["playwright_page_methods"]
        report(
            title=response.css("title::text").get(),
            sent=response.css("#sent::text").get(),
            marks=marks.result,
            picture=picture.result,
        )


process = CrawlerProcess(
    {
        "DOWNLOAD_HANDLERS": {"http": HANDLER, "https": HANDLER},
        "PLAYWRIGHT_CDP_URL": WS,
        "TELNETCONSOLE_ENABLED": False,
        "TWISTED_REACTOR": "twisted.internet.asyncioreactor.AsyncioSelectorReactor",
    }
)
process.crawl(Form)
process.start()
