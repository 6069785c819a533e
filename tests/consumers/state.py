"""The state command of `cargo local consumer-check` for the consumers of this folder: prints the state of an order.

    python state.py STATES_FILE PROVIDER SHOP ORDER
"""

import json
import pathlib
import sys

file, provider, shop, order = sys.argv[1:]
path = pathlib.Path(file)
states = json.loads(path.read_text()) if path.exists() else {}
print(json.dumps(states.get(f"/{provider}/{shop}/{order}")))
