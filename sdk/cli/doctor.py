"""`sdk doctor`: what this machine has, what is missing, what that disables, and the command that mends it.

The exit status is 0 when engines can run on at least one device, else 1.
"""

from __future__ import annotations

import argparse
import textwrap

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(arguments: argparse.Namespace) -> int:
    import json

    from sdk.cli._findings import examine, runnable_devices, table_from_findings

    findings = examine()
    devices = runnable_devices(findings)
    if arguments.json:
        print(json.dumps(table_from_findings(findings), indent=1))
        return 0 if devices else 1
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.status:8}{finding.name:{width}}  {finding.found}")
        for label, text in (("disables", finding.disables), ("mend", finding.mend)):
            if text:
                print(textwrap.indent(f"{label}: {text}", " " * (8 + width + 2)))
    print(f"\nengines run here on: {', '.join(devices) or 'no device'}")
    return 0 if devices else 1
