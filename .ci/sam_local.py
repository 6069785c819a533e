"""The servers of `sam local`, which run the built functions in Docker. A container stays for the next request."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

# The functions that `sam build` has written, and the settings of samconfig.toml.
BUILT = ["--template", "target/ci/x86_64/template.yaml", "--config-file", os.path.abspath("samconfig.toml")]
BUILT += ["--parameter-overrides", "Architecture=x86_64", "--skip-pull-image"]
START_SECONDS = 180


class Failed(Exception):
    """Some checks have failed."""


@contextlib.contextmanager
def serving(command: str) -> Iterator[int]:
    """Runs `sam local start-api` or `start-lambda` and yields its port. Prints its log if the caller raises."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    started = ["sam", "local", command, "--port", str(port), "--warm-containers", "EAGER", *BUILT]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(started, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_for(port, server)
            yield port
        except BaseException:
            log.seek(0)
            print(log.read()[-4000:], file=sys.stderr)
            raise
        finally:
            # On an interrupt, sam removes its containers.
            server.send_signal(signal.SIGINT)
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    """Waits until the server listens."""
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit("the server of sam local did not start") from None
            time.sleep(0.2)
