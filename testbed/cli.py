"""The command line. Each command is loaded when it is called: what one needs, the others do not wait for."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

import typer
from typer.core import TyperGroup

from results.run_folder_error import RunFolderError
from testbed.bad_input import BAD_INPUT, FAILED, BadInput, CommandFailed
from workloads.api_key import ApiKeyError

LONGEST_LINE = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class LazyCommand:
    """Where a command is, as "module:name" (a function, or a group's app), and what it does in one line."""

    where: str
    does: str


COMMANDS: Mapping[str, LazyCommand] = MappingProxyType(
    {
        "run": LazyCommand(
            where="testbed.cli_run:run",
            does="Run a scenario and write a run folder with records, summary and report.",
        ),
        "sweep": LazyCommand(
            where="testbed.cli_sweep:sweep_command",
            does="Run a study over local processes and compare its policies at equal SLO attainment.",
        ),
        "report": LazyCommand(
            where="testbed.cli_run:report",
            does="Rebuild summary.json and report.html of a run folder, also of a run that was killed.",
        ),
        "compare": LazyCommand(
            where="testbed.cli_compare:compare_runs",
            does="Compare policies over runs, against a baseline, with intervals over seeds.",
        ),
        "figures": LazyCommand(
            where="testbed.cli_figures:figures",
            does="Draw the figures of SageServe's evaluation from run folders or from a study, with their numbers.",
        ),
        "watch": LazyCommand(
            where="testbed.cli_watch:watch", does="Serve the dashboard of a recorded run, as it happened, at any speed."
        ),
        "explain": LazyCommand(
            where="testbed.cli_explain:explain_run",
            does="Tell what a policy saw, forecast, solved and did at a decision of a run, and why.",
        ),
        "trace": LazyCommand(
            where="testbed.cli_trace:app", does="Make, describe, convert, fit or replay a trace of requests."
        ),
        "forecast": LazyCommand(
            where="testbed.cli_forecast:app", does="Evaluate forecasts of demand on a trace, method by method."
        ),
        "bound": LazyCommand(
            where="testbed.cli_bound:bound",
            does="The least GPU-hours that serve a workload within its SLOs, with perfect foresight.",
        ),
        "profile": LazyCommand(
            where="testbed.cli_profile:app",
            does="Measure a model on this machine and write its profile; show, compare, validate profiles.",
        ),
        "calibrate": LazyCommand(
            where="testbed.cli_calibrate:calibrate_command",
            does="Compare real servers with emulated ones on the same requests, run now or recorded.",
        ),
        "export": LazyCommand(
            where="testbed.cli_export:export", does="Write profiles in the format of another simulator."
        ),
        "import": LazyCommand(
            where="testbed.cli_export:import_", does="Make a profile of another simulator's measurements."
        ),
        "clean": LazyCommand(
            where="testbed.cli_clean:clean",
            does="End what killed testbeds left on this machine: processes, temporary files.",
        ),
        "doctor": LazyCommand(
            where="testbed.cli_doctor:doctor", does="Tell what this machine offers, and which modes it can run."
        ),
    }
)


class LazyCommands(TyperGroup):
    """The group of `COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        return _load(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.does) for name, command in COMMANDS.items()])


def _load(name: str) -> Any:
    module, _, attribute = COMMANDS[name].where.partition(":")
    found = getattr(import_module(module), attribute)
    if not isinstance(found, typer.Typer):
        function, found = found, typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        found.command(name)(function)
    # Plain help, as that of `testbed` itself: paragraphs flow, and what takes no value is shown without one.
    found.rich_markup_mode = None
    return typer.main.get_command(found)


app = typer.Typer(
    cls=LazyCommands,
    name="testbed",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="GPU-in-the-loop testbed of SageServe: scale LLM servers across regions by forecasts and an integer program, "
    "on real vLLM servers or on emulated ones in virtual time. Begin with: testbed run quickstart",
)


@app.callback()
def _group() -> None:
    """Typer makes a group of an app that has a callback."""


def main() -> None:
    """Entry point of the console script: bad input is one line and exit code 2, never a traceback."""
    with _one_line_errors():
        app()


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except (BadInput, RunFolderError, ApiKeyError) as error:
        _fail(str(error), BAD_INPUT)
    except CommandFailed as error:
        _fail(str(error), FAILED)
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}", FAILED)


def _fail(message: str, code: int) -> None:
    line = " ".join(message.split())
    # What a file holds may be of any length, and it is in the message.
    shown = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
    print(f"testbed: {shown}", file=sys.stderr)
    raise SystemExit(code)
