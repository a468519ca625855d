"""A profile as tables, and several side by side."""

import pytest

from profiler.analytical import analytical_profile
from profiler.gpu_types import A100_80GB, H100
from profiler.model_shapes import LLAMA_3_1_8B
from profiler.profile import ServerProfile
from profiler.profile_parts import CrowdedRequest, Energy, Errors, LatencySlo, MemoryHeld, Power
from results.profile_comparison import comparison_tables, profile_labels
from results.profile_tables import profile_tables
from results.quantities import data_size, duration, three_figures
from results.reference_load import ReferenceLoad, common_load
from results.text_table import NOT_MEASURED, TextTable


def rows_of(tables: tuple[TextTable, ...], title: str) -> dict[str, tuple[str, ...]]:
    (table,) = [table for table in tables if table.title.startswith(title)]
    return {row[0]: row[1:] for row in table.rows}


def with_update(profile: ServerProfile, **fields: object) -> ServerProfile:
    return profile.model_copy(update=fields)


def test_what_was_not_measured_says_so_and_what_was_measured_as_none_is_zero(measured_profile) -> None:
    life = rows_of(profile_tables(measured_profile), "Lifecycle")
    assert life["cold start"] == ("71.0 s",)
    assert life["stop"] == ("0 s",)
    assert life["drain"] == life["sleep, level 2"] == life["wake, level 2"] == (NOT_MEASURED,)
    power = rows_of(profile_tables(measured_profile), "Power")
    assert set(power.values()) == {(NOT_MEASURED,)}


def test_an_analytical_profile_claims_no_measurement() -> None:
    tables = profile_tables(analytical_profile(LLAMA_3_1_8B, H100, 1))
    assert "nothing of it was measured" in rows_of(tables, "What it is")["kind"][0]
    assert rows_of(tables, "Where it comes from")["measurements"] == ("none",)
    by_title = {table.title: table for table in tables}
    assert by_title["Quality of the fit"].lead == "Not measured: nothing was fitted."
    assert by_title["Under load"].lead == "Not measured."
    assert by_title["Memory held"].lead == "Not measured."
    ((_, measured, *_),) = by_title["theta: tokens/s within an SLO"].rows
    assert measured == NOT_MEASURED


def test_step_times_read_as_a_sentence(measured_profile) -> None:
    (table,) = [table for table in profile_tables(measured_profile) if table.title == "Step time"]
    assert table.lead == "An iteration costs 7.00 ms, plus 30.0 us per new token beyond 200."
    costs = {row[0]: row[1] for row in table.rows}
    assert costs["1,000 KV tokens read"] == "50.0 us"
    assert costs["each request, outside of iterations"] == "4.00 ms"


def test_every_percentile_stands_in_a_row_with_its_n(measured_profile) -> None:
    (table,) = [table for table in profile_tables(measured_profile) if table.title == "Under load: latencies"]
    assert table.columns[-1] == "n"
    assert [row[:3] for row in table.rows[::3]] == [
        ("closed 8", "512 + 128", "TTFT"),
        ("open 2.5/s", "512 + 128", "TTFT"),
    ]
    assert {row[-1] for row in table.rows} == {"37"}
    assert table.notes == ("Of fewer than 100 requests the p99 is close to the slowest one.",)


def test_a_load_in_which_nothing_completed_has_no_latencies(measured_profile) -> None:
    empty = measured_profile.points[0].model_copy(update={"ttft_s": None, "tpot_s": None, "e2e_s": None})
    tables = profile_tables(with_update(measured_profile, points=(empty,)))
    (table,) = [table for table in tables if table.title == "Under load: latencies"]
    assert {row[3:] for row in table.rows} == {(NOT_MEASURED, "", "", "", "", "0")}


def test_a_measured_theta_stands_beside_the_predicted_one(measured_profile) -> None:
    (table,) = [table for table in profile_tables(measured_profile) if table.title.startswith("theta")]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["measured"], row["missed at"], row["n"]) == ("6,400", "12.0/s", "250")
    predicted = float(row["predicted"].replace(",", ""))
    assert row["difference"] == f"{100 * (predicted / 6400 - 1):+.1f} %"


def test_an_slo_that_an_idle_server_misses_has_no_theta_but_a_reason(measured_profile) -> None:
    strict = measured_profile.theta[0].model_copy(update={"slo": LatencySlo(ttft_s=1e-4)})
    (table,) = [
        table
        for table in profile_tables(with_update(measured_profile, theta=(strict,)))
        if table.title.startswith("theta")
    ]
    assert "none" in table.rows[0]
    assert "even on an idle server" in table.notes[-1]


def test_what_a_request_costs_among_others_is_shown_where_it_was_measured(measured_profile) -> None:
    assert "A request among others" not in [table.title for table in profile_tables(measured_profile)]
    points = (
        CrowdedRequest(decode_seqs=8, overhead_s=9e-3, n=36),
        CrowdedRequest(decode_seqs=63, overhead_s=-1e-3, n=33),
    )
    crowded = with_update(measured_profile, crowded_requests=points)
    rows = rows_of(profile_tables(crowded), "A request among others")
    assert rows == {"8": ("9.00 ms", "36"), "63": ("-1.00 ms", "33")}


def test_predictions_end_where_the_domain_ends_and_where_the_server_is_full(measured_profile) -> None:
    tables = profile_tables(measured_profile)
    (ttft,) = rows_of(tables, "Predicted: first token").values()
    assert ttft[:2] == (duration(11e-3 + 128**2 / 2 * 1e-9), duration(11e-3 + 312 * 3e-5 + 131_072e-9))
    assert ttft[3] == "does not fit"
    gaps = rows_of(tables, "Predicted: time between tokens")
    assert gaps["8"][0] == duration(7e-3 + 8e-5 + 8 * 512 * 5e-8)
    assert gaps["32"] == (duration(7e-3 + 32e-5 + 32 * 512 * 5e-8), "outside")
    assert gaps["128"] == ("does not fit", "does not fit")


def test_a_fit_shows_each_judge_that_it_had(measured_profile) -> None:
    held_out = Errors(mape=0.02, median_ape=0.02, max_ape=0.05, n=5)
    fit = measured_profile.fit.model_copy(update={"held_out": held_out, "regions": {"decode, 1-8": held_out}})
    rows = rows_of(profile_tables(with_update(measured_profile, fit=fit)), "Quality of the fit")
    assert rows["points of the fit"] == ("1 %", "0.9 %", "3 %", "12")
    assert rows["each by a fit to the others"][0] == NOT_MEASURED
    assert rows["points held out"] == rows["decode, 1-8"] == ("2 %", "2 %", "5 %", "5")


def test_memory_held_tells_none_from_unknown(measured_profile) -> None:
    life = measured_profile.lifecycle.model_copy(
        update={"memory": (MemoryHeld(state="ready", gpu_bytes=3 * 2**30), MemoryHeld(state="stopped", gpu_bytes=0))}
    )
    rows = rows_of(profile_tables(with_update(measured_profile, lifecycle=life)), "Memory held")
    assert rows == {"ready": ("3.00 GiB", NOT_MEASURED), "stopped": ("0 MiB", NOT_MEASURED)}


def test_energy_per_token_is_power_over_tokens_and_not_energy_over_another_window(measured_profile) -> None:
    energy = Energy(window_s=10.0, energy_j=3000.0, mean_w=300.0)
    metered = measured_profile.points[0].model_copy(update={"energy": energy})
    (table,) = [
        table
        for table in profile_tables(with_update(measured_profile, points=(metered,)))
        if table.title == "Under load: energy"
    ]
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert (row["W"], row["J/token"], row["J/output token"]) == ("300", "0.234", "1.17")


@pytest.fixture
def slower(measured_profile) -> ServerProfile:
    """The same server on a GPU type whose iterations take twice as long, with nothing known of its life."""
    half = measured_profile.step_time
    doubled = {
        name: 2 * getattr(half, name)
        for name in ("overhead_s", "per_sequence_s", "per_kv_token_s", "per_prefill_pair_s", "prefill_overhead_s")
    }
    slopes = tuple((start, 2 * per_token_s) for start, per_token_s in half.slopes)
    return with_update(
        measured_profile,
        name="m-slow",
        gpu=measured_profile.gpu.model_copy(update={"type": "slow"}),
        step_time=type(half)(slopes=slopes, **doubled),
        request_overhead_s=2 * measured_profile.request_overhead_s,
        lifecycle=type(measured_profile.lifecycle)(),
        points=(),
        theta=(),
    )


def test_a_comparison_begins_with_what_differs(measured_profile, slower) -> None:
    first = comparison_tables((measured_profile, slower), ReferenceLoad())[0]
    assert first.rows == (("GPU", "1 x g", "1 x slow"),)
    assert "model m," in first.notes[0] and "weights real" in first.notes[0]
    assert "measured the same way" not in first.lead
    assert comparison_tables((measured_profile, measured_profile), ReferenceLoad())[0].lead.startswith("Nothing:")


def test_a_comparison_of_kinds_warns(measured_profile) -> None:
    analytical = analytical_profile(LLAMA_3_1_8B, A100_80GB, 1)
    first = comparison_tables((measured_profile, analytical), ReferenceLoad())[0]
    assert first.lead.startswith("Not all of these were measured the same way")


def test_ratios_are_to_the_first_and_only_between_numbers(measured_profile, slower) -> None:
    tables = comparison_tables((measured_profile, slower), ReferenceLoad())
    predicted = rows_of(tables, "Predicted")
    assert predicted["ITL, 8 x 512"][1].endswith(" (2.00x)")
    assert predicted["first token, prompt of 512"][1].endswith(" (2.00x)")
    assert predicted["ITL, 32 x 2,048"] == ("outside", "outside")
    assert rows_of(tables, "Lifecycle")["cold start"] == ("71.0 s", NOT_MEASURED)
    assert rows_of(tables, "KV cache")["tokens"] == ("100,000", "100,000 (1.00x)")


def test_theta_is_compared_at_one_load_that_of_the_first_measurement(measured_profile, slower) -> None:
    load = common_load((slower, measured_profile))
    assert (load.prompt_tokens, load.slo.ttft_s) == (512, 0.5)
    theta = rows_of(comparison_tables((measured_profile, slower), load), "theta")
    assert theta["measured"] == ("6,400/s", NOT_MEASURED)
    assert theta["n"] == ("250", "")
    assert float(theta["predicted"][1].split("(")[1].removesuffix("x)")) < 0.7
    other = rows_of(comparison_tables((measured_profile, slower), ReferenceLoad()), "theta")
    assert other["measured"] == (NOT_MEASURED, NOT_MEASURED)


def test_energy_is_compared_at_the_load_where_a_token_took_least(measured_profile, slower) -> None:
    closed, opened = measured_profile.points
    energy = Energy(window_s=10.0, energy_j=3000.0, mean_w=300.0)
    thrifty = with_update(
        measured_profile,
        points=(closed.model_copy(update={"energy": energy}), opened.model_copy(update={"energy": energy})),
        power=Power(output_token_j=0.5),
    )
    rows = rows_of(comparison_tables((thrifty, slower), ReferenceLoad()), "Energy")
    assert rows["per output token"] == ("0.500 J", NOT_MEASURED)
    assert rows["per token, at the best load"] == ("0.200 J", NOT_MEASURED)
    assert rows["which is"] == ("open 2.5/s", "")


def test_profiles_of_one_name_are_told_apart(measured_profile, slower) -> None:
    assert profile_labels((measured_profile, slower, measured_profile)) == ("m-g (1)", "m-slow", "m-g (2)")


def test_a_table_with_a_ragged_row_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="2 columns, a row of 1"):
        TextTable(title="t", columns=("a", "b"), rows=(("x",),))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0, "0 s"),
        (5.21e-8, "52.1 ns"),
        (9.9996e-4, "1.00 ms"),
        (7.2e-3, "7.20 ms"),
        (0.9999, "1.00 s"),
        (204.0, "3.4 min"),
    ],
)
def test_a_duration_has_three_figures_and_its_own_unit(value: float, told: str) -> None:
    assert duration(value) == told


def test_numbers_and_sizes_have_three_figures() -> None:
    assert [three_figures(x) for x in (0.0, 0.01234, 12.34, 999.7, 123456.0)] == [
        "0",
        "0.0123",
        "12.3",
        "1,000",
        "123,456",
    ]
    assert [data_size(x) for x in (0, 64 * 2**20, 80 * 2**30)] == ["0 MiB", "64.0 MiB", "80.0 GiB"]
