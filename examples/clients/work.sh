#!/bin/sh
# sh work.sh
set -eu
pool=${POOL_URL:-http://127.0.0.1:3000}
page=${PAGE_URL:-data:text/html,<title>Hello from the pool</title><h1>Hello</h1>}

post() { # route, body
  curl -sS --fail-with-body "$pool/$1" -H 'content-type: application/json' -d "$2"
}

post content "{\"url\": \"$page\"}" | sed 's/.*<title>\(.*\)<\/title>.*/\1/'
echo
post screenshot "{\"url\": \"$page\", \"options\": {\"fullPage\": true}}" >work.png
post pdf "{\"url\": \"$page\", \"options\": {\"format\": \"A4\"}}" >work.pdf
