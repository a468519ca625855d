"""The formats that profiles can be exported to."""

from profiler.exports.aiconfigurator import write_aiconfigurator
from profiler.exports.blis import write_blis
from profiler.exports.dynamo import write_dynamo
from profiler.exports.export import ExportFormat
from profiler.exports.inferno import write_inferno
from profiler.exports.llm_d_inference_sim import write_llm_d_inference_sim
from profiler.exports.splitwise import write_splitwise
from profiler.exports.tidy_csv import write_tidy_csv
from profiler.exports.vidur import write_vidur

EXPORT_FORMATS: dict[str, ExportFormat] = {
    to.name: to
    for to in (
        ExportFormat(name="sageserve", consumer="SageServe simulator", page="splitwise.md", write=write_splitwise),
        ExportFormat(name="splitwise", consumer="SplitwiseSim", page="splitwise.md", write=write_splitwise),
        ExportFormat(name="vidur", consumer="Vidur", page="vidur.md", write=write_vidur),
        ExportFormat(name="dynamo", consumer="Dynamo planner and mocker", page="dynamo.md", write=write_dynamo),
        ExportFormat(
            name="aiconfigurator", consumer="AIConfigurator", page="aiconfigurator.md", write=write_aiconfigurator
        ),
        ExportFormat(name="blis", consumer="BLIS (inference-sim)", page="blis.md", write=write_blis),
        ExportFormat(
            name="llm-d-inference-sim",
            consumer="llm-d-inference-sim",
            page="llm-d-inference-sim.md",
            write=write_llm_d_inference_sim,
        ),
        ExportFormat(
            name="inferno",
            consumer="inferno optimizer, workload-variant-autoscaler",
            page="inferno.md",
            write=write_inferno,
        ),
        ExportFormat(name="csv", consumer="spreadsheets and notebooks", page="csv.md", write=write_tidy_csv),
    )
}
