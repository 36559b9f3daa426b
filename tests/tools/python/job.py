"""What a program of a tool is given in its environment, and how it tells what it did; see lib/job.mjs."""

import base64
import json
import os
import struct
import time
from pathlib import Path
from urllib.parse import urlsplit

WS = os.environ["CDP_WS"]
HTTP = os.environ["CDP_HTTP"]
HOST = urlsplit(HTTP).hostname
PORT = urlsplit(HTTP).port
SITE = os.environ["SITE"]
JOB = os.environ["JOB"]
FOLDER = Path(os.environ["FOLDER"])

FORM = f"{SITE}/form.html?job={JOB}"
FILES = f"{SITE}/files.html?job={JOB}"
NAME = f"job {JOB}"
MARK = f"""(() => {{
  const found = document.cookie + (localStorage.getItem('mark') ?? '');
  document.cookie = 'mark={JOB}; Max-Age=3600';
  localStorage.setItem('mark', '{JOB}');
  return found;
}})()"""
SENT = "document.getElementById('sent').textContent"


def downloaded(path, limit=10):
    """Answers with the size of the file at `path` once there is one."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        if Path(path).is_file() and Path(path).stat().st_size > 0:
            return Path(path).stat().st_size
        time.sleep(0.05)
    raise TimeoutError(f"nothing was downloaded within {limit} s")


def report(picture=None, **did):
    """Tells what was done; `picture` as its bytes or in Base64."""
    if picture is not None:
        did["picture"] = picture_size(picture)
    (FOLDER / "report.json").write_text(json.dumps(did))


def picture_size(picture):
    """Width and height of a PNG or a JPEG."""
    data = base64.b64decode(picture) if isinstance(picture, str) else bytes(picture)
    if data[1:4] == b"PNG":
        return "{}x{}".format(*struct.unpack(">II", data[16:24]))
    at = 2
    while data[:2] == b"\xff\xd8" and at < len(data):
        if 0xC0 <= data[at + 1] <= 0xC2:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return f"{width}x{height}"
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise ValueError("neither a PNG nor a JPEG")
