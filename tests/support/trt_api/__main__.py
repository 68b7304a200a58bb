"""Record the bindings named by the first argument into the file named by the second."""

import importlib
import json
import sys
from pathlib import Path

from tests.support.trt_api import bindings_at, record_of

source, target = sys.argv[1:]
module = bindings_at(source) if source.endswith(".so") else importlib.import_module(source)
Path(target).write_text(json.dumps(record_of(module), indent=0, sort_keys=True) + "\n")
