"""`imagebind doctor`: what is installed and missing, whether every modality works here, and what sets options."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from imagebind_cli.cli.command import single_command
from imagebind_cli.cli.configuration import Configuration
from imagebind_cli.cli.output import AsJSON, write_json_line, write_lines
from imagebind_cli.cli.settings import configuration_files
from imagebind_cli.cli.talk import exit_if_bad
from imagebind_cli.cli.variables import option_variables, shown_value
from imagebind_cli.errors import UserError
from imagebind_cli.installation import Check, check_installation


def doctor_command(context: typer.Context, as_json: AsJSON = False) -> None:
    """Check versions, devices, codecs, fetched models, room, and every modality on generated input; list what sets options.

    Exit code 1 when something a command needs is missing, or `imagebind.toml` has an error, with the line that fixes it.
    """
    configuration, files = _configuration(context)
    checks = [*check_installation(), *files]
    bad = [check for check in checks if check.ok is False]
    if as_json:
        write_json_line({"ok": not bad, "checks": [asdict(check) for check in checks], "configuration": configuration})
    else:
        for check in checks:
            mark = {True: "ok", False: "BAD", None: ""}[check.ok]
            write_lines([f"{mark:<4}{check.name:<17}{check.found}"])
            if check.ok is False and check.mend:
                write_lines([f"    fix it: {check.mend}"])
    exit_if_bad(bool(bad))


def _configuration(context: typer.Context) -> tuple[dict[str, Any], list[Check]]:
    """Return the sources of options, as a document and as lines of the report."""
    root = context.find_root().command
    files, (known, unknown) = configuration_files(), option_variables(root)
    settings, error = [], None
    try:
        settings = Configuration(root).settings
    except UserError as problem:
        error = str(problem)
    in_force = [
        {"file": str(one.file), "section": " ".join(one.section), "option": one.key, "value": shown_value(one.key, one.value)}
        for one in settings
    ]
    document = {
        "files": [str(file) for file in files],
        "error": error,
        "settings": in_force,
        "variables": known,
        "unknown_variables": unknown,
    }
    found = "; ".join([*(f"{one} = {shown_value(one.key, one.value)}" for one in settings)]) or ", ".join(map(str, files)) or "none"
    checks = [Check("configuration", error or found, None if error is None else False, "" if error is None else "edit that line")]
    checks += [Check("variables", ", ".join(f"{name}={value}" for name, value in known.items()) or "none")]
    checks += [Check("variables", f"these have no effect: {', '.join(unknown)}")] if unknown else []
    return document, checks


app = single_command("doctor", doctor_command)
