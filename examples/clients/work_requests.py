# pip install requests && python work_requests.py
import os

import requests

POOL = os.environ.get("POOL_URL", "http://127.0.0.1:3000")
PAGE = os.environ.get("PAGE_URL", "data:text/html,<title>Hello from the pool</title><h1>Hello</h1>")


def post(route, **body):
    answer = requests.post(f"{POOL}/{route}", json=body, timeout=90)
    if not answer.ok:
        raise SystemExit(answer.json()["detail"])
    return answer


scraped = post("scrape", url=PAGE, elements=[{"selector": "title"}]).json()
print(scraped["data"][0]["results"][0]["html"])

with open("work.png", "wb") as file:
    file.write(post("screenshot", url=PAGE, options={"fullPage": True}).content)
with open("work.pdf", "wb") as file:
    file.write(post("pdf", url=PAGE, options={"format": "A4"}).content)
