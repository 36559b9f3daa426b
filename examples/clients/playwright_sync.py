# pip install playwright && python playwright_sync.py
import os

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    browser = playwright.chromium.connect_over_cdp(os.environ.get("CDP_URL", "ws://127.0.0.1:3000/?priority=1"))
    page = browser.new_page()

    page.goto(os.environ.get("PAGE_URL", "data:text/html,<title>Hello from the pool</title>"))
    print(page.title())
    page.screenshot(path="playwright.png")

    browser.close()  # gives the browser back; the next lease finds it clean
