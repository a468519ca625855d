"""`testbed calibrate`: is the emulated server true to the real one?"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from results.calibration import CALIBRATION_FILE, CalibrationError, CalibrationRecord
from results.calibration_page import CALIBRATION_PAGE, case_title
from results.calibration_rounds import over_rounds, rounds_table
from results.calibration_tables import alone_table
from results.manifest import MANIFEST_FILE
from testbed.bad_input import INTERRUPTED, BadInput
from testbed.calibration import calibrate
from testbed.calibration_cases import profile_override, read_cases
from testbed.calibration_profiles import measure_profiles
from testbed.calibration_runs import RealRuns
from testbed.scenario import Mode
from testbed.scenario_file import load_scenario
from testbed.terminal_tables import print_tables

stdout = Console()


def calibrate_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Run folders recorded earlier, on any machine (several of one workload are repeats of each other); or "
            "one scenario, which is then run on real servers: try calibrate-cpu; or folders of calibrations, whose "
            "errors are then shown together.",
            metavar="RUN_FOLDER...|SCENARIO|CALIBRATION...",
        ),
    ],
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL/GPU=FILE", help="A profile instead of the scenario's: small-llama/cpu=x.json. Repeatable."
        ),
    ] = None,
    profile_minutes: Annotated[
        float | None,
        typer.Option(min=0.5, help="Of a scenario: measure the profiles first, so many minutes for each."),
    ] = None,
    loads: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE,...",
            help="Of a scenario with a synthetic workload: run it at these shares of what its initial servers sustain "
            "(as their profiles measured it, else as computed), as in 0.5,0.8. Default: at its own rate.",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of a scenario: real runs of each load. Two tell what real runs differ by. Default: 2."
        ),
    ] = None,
    policy: Annotated[list[str] | None, typer.Option(help="Of a scenario: policy to run. Default: all.")] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="Of a scenario: what stands for the real servers; emulated and virtual try it out. Default: vllm."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a key of the scenario. Repeatable.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write; must not exist. Default: results/calibrations/NAME-TIME."),
    ] = None,
) -> None:
    """Compare real servers with emulated ones on the same requests: latencies, throughput, every scaling decision.

    Servers alone: each real server's requests on an emulated one. Whole system: the trace once more, all emulated.
    Several calibrations together: each one's errors and their mean, in which a machine's changes of pace cancel.
    """
    folders = [Path(source) for source in sources if (Path(source) / MANIFEST_FILE).is_file()]
    profiles = profile or []
    if any((Path(source) / CALIBRATION_FILE).is_file() for source in sources):
        if any(given is not None for given in (loads, profile_minutes, repeats, mode, policy, set_, profile, out)):
            raise BadInput("folders of calibrations are shown together as they are; leave the options out")
        _print_together([Path(source) for source in sources])
        return
    if folders and len(folders) < len(sources):
        raise BadInput(f"{', '.join(sources)}: give run folders, or one scenario")
    if folders:
        if any(given is not None for given in (loads, profile_minutes, repeats, mode)) or policy or set_:
            raise BadInput(
                "--loads, --profile-minutes, --repeats, --policy, --mode and --set are of a scenario; "
                "a run folder has its own"
            )
        cases = read_cases(folders, profiles)
        name = cases[0].name
        target = _target(out, name)
        target.mkdir(parents=True)
    else:
        if len(sources) > 1:
            raise BadInput(f"{', '.join(sources)}: no run folders, and one scenario at a time")
        shares = _shares(loads)
        overrides = (*(set_ or []), *map(profile_override, profiles))
        name = load_scenario(sources[0], overrides)[0].name
        target = _target(out, name)
        if profile_minutes is not None:
            overrides += measure_profiles(sources[0], overrides, profile_minutes, target / "profiles")
        runs = RealRuns(
            scenario=sources[0],
            overrides=overrides,
            mode=mode or Mode.VLLM,
            loads=shares,
            repeats=2 if repeats is None else repeats,
            policies=tuple(policy or ()),
        )
        try:
            cases = read_cases(runs.run(target, stdout))
        except KeyboardInterrupt:
            stdout.print(f"interrupted; what was run: {target}", markup=False)
            raise SystemExit(INTERRUPTED) from None
    _print(calibrate(name, cases, target), target)


def _target(out: Path | None, name: str) -> Path:
    target = out or Path("results") / "calibrations" / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if target.exists():
        raise BadInput(f"{target} exists already; name a folder with --out that does not")
    nearest = next(above for above in target.parents if above.exists())
    if not nearest.is_dir():
        raise BadInput(f"--out {target}: {nearest} is a file; name a folder")
    return target


def _shares(loads: str | None) -> tuple[float, ...]:
    if loads is None:
        return ()
    try:
        shares = tuple(float(part) for part in loads.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 2 for share in shares):
        raise BadInput(f"--loads {loads}; wanted shares of the capacity, above 0 and up to 2, as in 0.5,0.8")
    return shares


def _print_together(folders: Sequence[Path]) -> None:
    try:
        calibrations = [CalibrationRecord.read(folder) for folder in folders]
    except CalibrationError as error:
        raise BadInput(str(error)) from error
    names = [folder.name for folder in folders]
    print_tables(stdout, [rounds_table(case, names) for case in over_rounds(calibrations)])


def _print(calibration: CalibrationRecord, folder: Path) -> None:
    for case in calibration.cases:
        stdout.print(f"[bold]{escape(case_title(case))}[/]")
        print_tables(stdout, [alone_table(case)])
        for remark in case.remarks:
            stdout.print(remark, markup=False, soft_wrap=True)
    for name in (CALIBRATION_FILE, CALIBRATION_PAGE):
        stdout.print(f"→ {folder / name}", soft_wrap=True, markup=False)
