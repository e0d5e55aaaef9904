"""Verifies the signatures of requests with Python's standard library alone: of the golden ones, and of those that
a receiver has got, written down in the same form.

Usage: verify.py FILE SECRET...   (whsec_..., the newest first)
"""

import base64
import hashlib
import hmac
import sys


def requests(path):
    """The requests of a file: type, headers, body."""
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    for entry in text.split("=== ")[1:]:
        event_type, _, rest = entry.partition("\n")
        if not rest.startswith("POST\n"):
            continue
        head, _, body = rest.removeprefix("POST\n").partition("\n\n")
        headers = dict(line.split(": ", 1) for line in head.split("\n"))
        body = body.rstrip("\n")
        is_base64 = body.startswith("base64 ")
        body = base64.b64decode(body.removeprefix("base64 ")) if is_base64 else body.encode()
        yield event_type, headers, body


def standard_webhooks(key, headers, body):
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def expected(keys, headers, body):
    """The header that signs the request, and what it has to be."""
    if "x-millicast-signature" in headers:
        return "x-millicast-signature", "sha1=" + hmac.new(keys[0], body, hashlib.sha1).hexdigest()
    return "webhook-signature", " ".join(standard_webhooks(key, headers, body) for key in keys)


def main(path, *secrets):
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets]
    count = 0
    for event_type, headers, body in requests(path):
        name, signature = expected(keys, headers, body)
        if headers[name] != signature:
            sys.exit(f"{event_type}: {name} is {headers[name]}, and should be {signature}")
        count += 1
    print(f"{count} requests verified")


if __name__ == "__main__":
    main(*sys.argv[1:])
