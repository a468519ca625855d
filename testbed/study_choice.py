"""Which policies and workloads of a study are run: those asked for, of those that are there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from controller.catalogue import policy_names
from testbed.strict import nearest
from testbed.study import Study, StudyError
from testbed.study_trace import found_trace


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepChoice:
    """What of a study to do, empty for all of it; where, over how many processes, and where public traces lie."""

    folder: Path
    jobs: int
    workloads: Sequence[str] = ()
    policies: Sequence[str] = ()
    seeds: Sequence[int] = ()
    overrides: Sequence[str] = ()
    traces_folder: Path | None = None
    quick: bool = False


def known_policies(study: Study, choice: SweepChoice, tell: Callable[[str], None]) -> tuple[str, ...]:
    """The policies to run; those that the catalogue lacks are left out. Raises StudyError for one not in the study."""
    for name in choice.policies:
        if name not in study.policies:
            raise StudyError(f"--policy {name}: not in this study{nearest(name, study.policies)}")
    known = []
    for name in dict.fromkeys(choice.policies or study.policies):
        catalogue_name = study.policies[name].policy or name
        if catalogue_name in policy_names():
            known.append(name)
        else:
            hint = nearest(catalogue_name, policy_names())
            tell(f"policy {name} left out: there is no policy {catalogue_name!r}{hint}")
    if not known:
        raise StudyError("no policy of this study is known here")
    return tuple(known)


def present_workloads(
    study: Study, choice: SweepChoice, tell: Callable[[str], None]
) -> tuple[tuple[str, ...], dict[str, Path]]:
    """The workloads to run, and the files of those that come from public traces; absent ones are left out.

    Raises StudyError for one not in the study, or where none is left.
    """
    for name in choice.workloads:
        if name not in study.workloads:
            raise StudyError(f"--workload {name}: not in this study{nearest(name, study.workloads)}")
    listed = choice.workloads or (study.quick.workloads if choice.quick else ()) or tuple(study.workloads)
    wanted = tuple(dict.fromkeys(listed))
    sources, absent = {}, {}
    for name in wanted:
        trace = study.workloads[name].trace
        if trace is not None:
            source = found_trace(trace, choice.traces_folder)
            if source is None:
                absent[name] = trace.names[0]
            else:
                sources[name] = source
    if absent:
        names = ", ".join(f"{name} ({file})" for name, file in absent.items())
        where = choice.traces_folder or "no folder: give --traces DIR or set TESTBED_TRACES"
        tell(f"left out, their traces are not there: {names}; looked in {where}")
    present = tuple(name for name in wanted if name not in absent)
    if not present:
        raise StudyError("no workload of this study is there to run; see `--traces`")
    return present, sources
