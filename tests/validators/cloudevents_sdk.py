"""Checks that the CloudEvents SDK for Python parses every golden event."""

import json
import sys
from datetime import datetime
from pathlib import Path

from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

goldens = sorted(Path(sys.argv[1]).glob("*/*.normalized.json"))
assert len(goldens) > 100, f"{len(goldens)} golden events, some are missing"
for path in goldens:
    golden = json.loads(path.read_bytes())
    event = JSONFormat().read(CloudEvent, path.read_bytes())
    for name in ["id", "source", "type", "subject", "datacontenttype", "dataschema"]:
        value = getattr(event, f"get_{name}")()
        assert value == golden.get(name), f"{path}: {name} is {value}"
    # Python's datetime has microseconds.
    time = golden["time"].removesuffix("Z").split(".")
    expected = datetime.fromisoformat(f"{time[0]}.{(time[1:] or ['0'])[0]:0<6.6}+00:00")
    assert event.get_time() == expected, f"{path}: the time is {event.get_time()}"
    assert event.get_data() == golden["data"], f"{path}: the data differ"
print(f"{len(goldens)} golden events")
