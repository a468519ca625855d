import subprocess
import sys

import pytest
import typer

from testbed.cli import COMMANDS, app


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_help_is_there_and_has_help_of_its_own(name: str) -> None:
    command = typer.main.get_command(app).get_command(None, name)  # type: ignore[attr-defined, arg-type]
    assert command is not None
    assert command.help


def test_the_help_loads_no_command() -> None:
    told = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys; from testbed.cli import main\n"
            "sys.argv = ['testbed', '--help']\n"
            "try: main()\n"
            "except SystemExit: print([name for name in ('pandas', 'scipy', 'aiohttp') if name in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert told.stdout.splitlines()[-1] == "[]"
    assert all(f"  {name} " in told.stdout for name in COMMANDS)
