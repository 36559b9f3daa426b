"""Drives Kernel's own client for Python, as it comes from PyPI, against a pool that has one place for three leases.

    tests/clients/.venv/bin/python tests/clients/kernel_sdk.py POOL_URL SITE_URL --token TOKEN

Prints a line of JSON for each job that is done, and ends with an error at the first that is not.
"""

import argparse
import json

import kernel
from playwright.sync_api import sync_playwright

JOBS = []


def job(function):
    JOBS.append(function)
    return function


def refused(call, *args, **named):
    """Returns the class, the status and the code of the error that a call must end with."""
    try:
        call(*args, **named)
    except kernel.APIStatusError as error:
        return type(error).__name__, error.status_code, error.body["code"]
    raise AssertionError("it was not refused")


@job
def a_browser_is_acquired_driven_and_released(client, playwright, site):
    started = f"{site}/form.html?started"
    browser = client.browser_pools.acquire("default", name="checkout", start_url=started, tags={"team": "backend"})
    assert (browser.name, browser.tags, browser.start_url) == ("checkout", {"team": "backend"}, started)
    assert (browser.headless, browser.stealth, browser.timeout_seconds) == (True, False, 90)
    assert browser.created_at.tzinfo is not None
    driven = playwright.chromium.connect_over_cdp(browser.cdp_ws_url)
    page = driven.contexts[0].pages[0]
    page.wait_for_url(started)
    assert page.title() == "A form"
    driven.close()
    taken = refused(client.browser_pools.acquire, "default", name="checkout")
    assert taken == ("ConflictError", 409, "name_taken"), taken
    client.browser_pools.release("default", session_id=browser.session_id)
    over = refused(client.browser_pools.release, "default", session_id=browser.session_id)
    assert over == ("APIStatusError", 410, "lease_over"), over


@job
def an_acquire_that_waits_in_vain_is_none(client, *_):
    held = [client.browser_pools.acquire("default") for _ in range(3)]
    assert client.browser_pools.acquire("default", acquire_timeout_seconds=0) is None
    for browser in held:
        client.browser_pools.release("default", session_id=browser.session_id, reuse=False)


@job
def browsers_are_listed_page_by_page_read_and_deleted(client, *_):
    for name, team in (("one", "a"), ("two", "b"), ("three", "a")):
        client.browser_pools.acquire("default", name=name, tags={"team": team})
    assert [browser.name for browser in client.browsers.list(limit=1)] == ["one", "two", "three"]
    assert [browser.name for browser in client.browsers.list(tags={"team": "a"})] == ["one", "three"]
    assert client.browsers.retrieve("two").tags == {"team": "b"}
    for name in ("one", "two", "three"):
        client.browsers.delete_by_id(name)
    unknown = refused(client.browsers.retrieve, "nobody")
    assert unknown == ("NotFoundError", 404, "unknown_lease"), unknown


@job
def the_pool_is_listed_resized_and_flushed(client, *_):
    assert [pool.name for pool in client.browser_pools.list()] == ["default"]
    assert client.browser_pools.update("default", size=4).browser_pool_config.size == 4
    assert client.browser_pools.update("default", size=3, discard_all_idle=True).browser_pool_config.size == 3
    client.browser_pools.flush("default")
    assert client.browser_pools.retrieve("default").acquired_count == 0


@job
def a_stranger_is_refused(client, *_):
    stranger = client.with_options(api_key="wrong")
    answer = refused(stranger.browser_pools.acquire, "default")
    assert answer == ("AuthenticationError", 401, "unauthorized"), answer


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pool")
    parser.add_argument("site")
    parser.add_argument("--token", required=True)
    options = parser.parse_args()
    client = kernel.Kernel(api_key=options.token, base_url=options.pool, max_retries=0)
    with sync_playwright() as playwright:
        for run in JOBS:
            run(client, playwright, options.site)
            print(json.dumps({"job": run.__name__}), flush=True)


main()
