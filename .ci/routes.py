#!/usr/bin/env python3
"""Sends a request to every route of the template with every method, through `sam local start-api`: .ci/routes.py

The functions must be built, Docker must run, and containers must reach the local stack as host.docker.internal.
"""

import base64
import http.client
import json
import pathlib
import sys

from sam_local import Failed, serving

PROVIDERS = {
    "aboutyou": "order-created",
    "cartum": "order-created",
    "deeple": "order-changed",
    "selldone": "checkout-order",
    "snipcart": "order-completed",
}
# Methods in addition to POST. Without a body, a request is a ping.
MORE_METHODS = {"cartum": ("PUT", "DELETE")}
# Headers that the gateway sets itself.
GATEWAYS = {
    *("host", "content-length", "accept-encoding"),
    *("x-amzn-trace-id", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"),
}


def ask(port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None):
    """Returns the status, the headers and the body, which is parsed if it is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    text = response.read()
    try:
        return response.status, response.headers, json.loads(text)
    except ValueError:
        return response.status, response.headers, text


def cases(port: int):
    """Yields each request and what is wrong with its answer."""
    for provider, name in PROVIDERS.items():
        event = json.loads(pathlib.Path(f"events/{provider}/{name}.json").read_text())
        body = base64.b64decode(event["body"]) if event["isBase64Encoded"] else event["body"].encode()
        headers = {name: value for name, value in event["headers"].items() if name not in GATEWAYS}
        path = f"{event['rawPath']}?{event['rawQueryString']}".rstrip("?")
        status, _, answer = ask(port, "POST", path, body, headers)
        good = status == 200 and answer.get("status") in ("accepted", "duplicate")
        yield f"POST {event['rawPath']}", None if good else (status, answer)
        for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"):
            status, given, answer = ask(port, method, path)
            if method in MORE_METHODS.get(provider, ()):
                good = status == 200 and answer.get("status") in ("unsupported", "duplicate")
            else:
                good = status == 405 and "POST" in given.get("allow", "").replace(",", " ").split()
            yield f"{method} {event['rawPath']}", None if good else (status, given.get("allow"), answer)
        status, _, answer = ask(port, "POST", f"{event['rawPath']}/?{event['rawQueryString']}".rstrip("?"), body, headers)
        good = status == 200 and answer.get("status") == "duplicate"
        yield f"POST {event['rawPath']}/", None if good else (status, answer)
        status, _, answer = ask(port, "POST", f"/webhooks/{provider}/unknown", body, headers)
        yield f"POST /webhooks/{provider}/unknown", None if status == 401 else (status, answer)
        status, _, answer = ask(port, "POST", f"/webhooks/{provider}/main/more", body, headers)
        yield f"POST /webhooks/{provider}/main/more", None if status == 401 else (status, answer)
    for path in ("/", "/webhooks", "/webhooks/unknown/main", "/webhooks/selldone"):
        status, _, answer = ask(port, "POST", path)
        # API Gateway answers 404, sam answers 403.
        yield f"POST {path}, an unknown route", None if status in (403, 404) else (status, answer)


def main() -> int:
    failures = passed = 0
    try:
        with serving("start-api") as port:
            for what, wrong in cases(port):
                print(f"failed {what}: {wrong}" if wrong else f"ok     {what}", flush=True)
                failures += bool(wrong)
                passed += not wrong
            if failures:
                raise Failed
    except Failed:
        pass
    print(f"{passed} passed, {failures} failed")
    return 1 if failures else 0


sys.exit(main())
