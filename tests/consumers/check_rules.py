"""Checks that the consumers of this folder follow every rule, with `cargo local consumer-check`.

    python check_rules.py FOLDER_OF_THE_BINARIES      (tests/consumers/run prepares everything and runs it)
"""

import contextlib
import pathlib
import shlex
import subprocess
import sys
import tempfile

from check import BINARIES, CONSUMERS, HERE, ROOT, Queue, Stack, stop


def check(stack: Stack, name: str, folder: pathlib.Path):
    """Runs one consumer, and checks it."""
    queue = Queue(stack.client("sqs"), f"rules-{name}")
    states = folder / f"{name}.json"
    with contextlib.ExitStack() as running:
        log = running.enter_context((folder / f"{name}.log").open("wb"))
        env = stack.env | {"QUEUE_URL": queue.url, "STATES_FILE": str(states)}
        consumer = subprocess.Popen(CONSUMERS[name], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        running.callback(stop, consumer)
        command = shlex.join([sys.executable, str(HERE / "state.py"), str(states)])
        checked = subprocess.run(
            [BINARIES / "local", "consumer-check", "--queue", queue.url, "--state-command", command],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
    if checked.returncode != 0:
        sys.exit(f"{name} breaks a rule:\n{checked.stdout}\n{(folder / f'{name}.log').read_text()}")
    print(f"ok     {name}: {checked.stdout.strip().splitlines()[-1]}")


def main():
    with contextlib.ExitStack() as running:
        folder = pathlib.Path(running.enter_context(tempfile.TemporaryDirectory()))
        stack = Stack(folder, running)
        for name in CONSUMERS:
            check(stack, name, folder)


if __name__ == "__main__":
    main()
