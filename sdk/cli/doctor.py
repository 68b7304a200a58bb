"""`sdk doctor`: what this machine has, what is missing, what that disables, and the command that mends it.

The exit status is 0 when engines can run on at least one device, else 1. `--report` prints the same as Markdown for a
bug report, without the user's name, the machine's, or any of their folders.
"""

from __future__ import annotations

import argparse
import textwrap

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON document")
    form.add_argument("--report", action="store_true", help="print Markdown for a bug report, without names or folders")


def run(arguments: argparse.Namespace) -> int:
    import json

    from sdk.cli._findings import examine, report_from_findings, runnable_devices, table_from_findings

    findings = examine()
    devices = runnable_devices(findings)
    if arguments.json:
        print(json.dumps(table_from_findings(findings), indent=1))
        return 0 if devices else 1
    if arguments.report:
        print(report_from_findings(findings))
        return 0 if devices else 1
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.status:8}{finding.name:{width}}  {finding.found}")
        for label, text in (("disables", finding.disables), ("mend", finding.mend)):
            if text:
                print(textwrap.indent(f"{label}: {text}", " " * (8 + width + 2)))
    print(f"\nengines run here on: {', '.join(devices) or 'no device'}")
    return 0 if devices else 1
