"""Observe, replay, calibrate: recorded runs against emulated servers, and against an emulated system."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from profiler.profile import ServerProfile
from results.calibration import CalibrationRecord, CaseRecord, DecisionAgreement, ProfileFacts, RunFacts
from results.calibration_decisions import decision_agreement
from results.calibration_figures import CaseCurves
from results.calibration_measures import crowds, limits_for, request_measures
from results.calibration_page import write_calibration_page
from results.calibration_system import server_starts, system_measures
from results.run_folder import PolicyFolder, RunFolder
from testbed.calibration_alone import ServersAlone
from testbed.calibration_cases import Case
from testbed.calibration_system_run import NotEmulated, emulate_system
from workloads.completion import Outcome


def calibrate(name: str, cases: Sequence[Case], out: Path) -> CalibrationRecord:
    """Compare every case; write calibration.json, calibration.html and the emulated runs into the folder `out`.

    Raises RunFailed when an emulated system could not run.
    """
    records, curves = [], []
    for number, case in enumerate(cases, start=1):
        record, drawn = _case(case, out / f"emulated-{number}")
        records.append(record)
        curves.append(drawn)
    calibration = CalibrationRecord(
        name=name,
        profiles=_profiles(cases),
        host=cases[0].runs[0].manifest.host,
        cases=tuple(records),
    )
    calibration.write(out)
    write_calibration_page(calibration, curves, out)
    return calibration


def _case(case: Case, emulated_folder: Path) -> tuple[CaseRecord, CaseCurves]:
    limits = limits_for([gpu_type for _, gpu_type in case.profiles])
    alone = ServersAlone(case)
    pairs = alone.replay()
    remarks: list[str] = []
    system: RunFolder | None = None
    try:
        system = emulate_system(case, emulated_folder)
    except NotEmulated as error:
        remarks.append(f"The whole system was not emulated: {error}.")
    emulated = None if system is None else system.policy(case.policy)
    record = CaseRecord(
        name=case.name,
        policy=case.policy,
        runs=tuple(_run_facts(case, run, real) for run, real in zip(case.runs, pairs.real, strict=True)),
        servers_alone=request_measures(pairs.real, pairs.emulated, limits),
        variants=alone.variants(pairs),
        crowds=crowds(pairs.real, pairs.emulated),
        whole_system=() if system is None else system_measures(case.runs, system, case.policy, limits),
        decisions=() if emulated is None else _decisions(case, emulated, remarks),
        starts=server_starts(case.folders(), emulated),
        remarks=tuple(remarks),
    )
    curves = CaseCurves(
        real=pairs.real, alone=pairs.emulated, system=None if emulated is None else emulated.completions()
    )
    return record, curves


def _decisions(case: Case, emulated: PolicyFolder, remarks: list[str]) -> tuple[DecisionAgreement, ...]:
    try:
        return tuple(decision_agreement(folder, emulated) for folder in case.folders())
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # of another version, or torn by a kill
        remarks.append(f"Decisions were not compared: they cannot be read ({type(error).__name__}: {error}).")
        return ()


def _run_facts(case: Case, run: RunFolder, compared: pd.DataFrame) -> RunFacts:
    completions = run.policy(case.policy).completions()
    record = run.manifest.policies[case.policy]
    prompts = float(completions["prompt_tokens"].sum())
    return RunFacts(
        folder=run.path.name,
        mode=run.manifest.mode,
        requests=len(completions),
        completed=int((completions["outcome"] == Outcome.COMPLETED.value).sum()),
        compared=len(compared),
        requests_per_s=len(completions) / run.manifest.horizon_s,
        cached_prompt_share=float(completions["cached_tokens"].sum()) / prompts if prompts else 0.0,
        lateness_s=record.lateness_s,
        client=record.client,
    )


def _profiles(cases: Sequence[Case]) -> tuple[ProfileFacts, ...]:
    found: dict[tuple[str, str], ServerProfile] = {}
    for case in cases:
        found |= case.profiles
    return tuple(
        ProfileFacts(
            model=model,
            gpu_type=gpu_type,
            name=profile.name,
            kind=profile.kind,
            date=profile.provenance.date,
            request_overhead_s=profile.request_overhead_s,
            request_overhead_at_most_s=(
                profile.request_overhead_among_s(profile.engine.max_num_seqs) if profile.crowded_requests else None
            ),
            fit_error=profile.fit.residuals.mape if profile.fit else None,
            held_out_error=profile.fit.held_out.mape if profile.fit and profile.fit.held_out else None,
            noise=profile.fit.noise if profile.fit else None,
            most_decode_seqs=profile.domain.decode_seqs[1] if profile.domain else None,
        )
        for (model, gpu_type), profile in found.items()
    )
