"""A run of named steps: the Python twin of lib/steps.mjs, with the same lines and the same normalised results."""

import argparse
import json
import os
import re
import struct
import sys
import time
from urllib.parse import urlsplit


def parameters():
    """What every script takes: CDP_URL SITE_URL [--only a,b] [--dir DIR]."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cdp", nargs="?", default=os.environ.get("CDP_URL"))
    parser.add_argument("site", nargs="?", default=os.environ.get("SITE_URL"))
    parser.add_argument("--only", type=lambda names: names.split(","))
    parser.add_argument("--dir")
    parser.add_argument("--timeout", type=int, default=20000, help="milliseconds for one call")
    options = parser.parse_args()
    if not options.cdp or not options.site:
        parser.error("the CDP endpoint and the URL of the test site are wanted")
    return options


class Steps:
    """Runs steps and remembers whether one failed."""

    def __init__(self, only=None):
        self._only = only
        self._failed = False

    def wants(self, name):
        return self._only is None or name in self._only

    def run(self, name, step):
        """Runs one step and prints how it went; never raises, so the steps after it run as well."""
        begun = time.monotonic()
        try:
            outcome = {"ok": True, "result": step()}
        except Exception as error:
            outcome = {"ok": False, "error": str(error)}
            self._failed = True
        ms = round((time.monotonic() - begun) * 1000)
        print(json.dumps({"step": name, "ok": outcome.pop("ok"), "ms": ms, **outcome}), flush=True)

    def finish(self):
        sys.exit(1 if self._failed else 0)


def stable(value, site):
    """A result without what differs between runs: the site's ports and long ids."""
    text = json.dumps(value).replace("{0.scheme}://{0.netloc}".format(urlsplit(site)), "SITE")
    text = re.sub(r"(localhost|127\.0\.0\.1|\[::1\]):\d+", r"\1:PORT", text)
    text = re.sub(r"\b[0-9A-F]{32}\b", "ID", text)
    return json.loads(text)


def png_size(data):
    """Width and height of a PNG, from its header."""
    if data[1:4] != b"PNG":
        raise ValueError("not a PNG")
    return "{}x{}".format(*struct.unpack(">II", data[16:24]))
