"""Tells schemathesis how to sign a delivery, and which answers are allowed.

With CREDENTIALS=development, each delivery is signed with the development credentials of `cargo local`. It is authentic
then, so it must be stored, whatever it contains. With other values, no delivery is signed, and none may be stored.
"""

import atexit
import base64
import hashlib
import hmac
import os
import time
from collections import Counter
from urllib.parse import parse_qs, urlsplit

import requests
import schemathesis

AUTHENTIC = os.environ.get("CREDENTIALS") == "development"
answers = Counter()
atexit.register(lambda: print("answered:", dict(sorted(answers.items()))))


class Credentials(requests.auth.AuthBase):
    """Signs the request with its final body."""

    def __call__(self, request):
        provider = urlsplit(request.url).path.split("/")[2]
        if provider == "deeple":
            body = request.body or b"{}"
            body = body.encode() if isinstance(body, str) else body
            timestamp = str(int(time.time() * 1000))
            message = b"\r\n".join([request.method.encode(), timestamp.encode(), body])
            signature = hmac.new(b"local-secret", message, hashlib.sha256).hexdigest()
            request.headers.update({"PID": "local-pid", "TIMESTAMP": timestamp, "SIGNATURE": signature})
        elif provider == "snipcart":
            request.headers["X-Snipcart-RequestToken"] = "local-schemathesis"
        else:
            password = base64.b64encode(b":local-development-token").decode()
            request.headers["Authorization"] = f"Basic {password}"
        return request


@schemathesis.hook
def before_call(context, case, kwargs):
    if AUTHENTIC:
        kwargs["auth"] = Credentials()


@schemathesis.check
def authenticity(ctx, response, case):
    """Checks that authentic deliveries are stored, and no others."""
    answers[response.status_code] += 1
    url = urlsplit(response.request.url)
    documented = case.method.lower() in case.operation.schema.raw_schema["paths"][case.operation.path]
    if not AUTHENTIC:
        assert response.status_code != 200, "a delivery without credentials was stored"
    elif documented and url.path.endswith("/main") and "token" not in parse_qs(url.query, keep_blank_values=True):
        assert response.status_code == 200, "an authentic delivery was refused"
