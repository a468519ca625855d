import pytest

from profiler.model_shapes import BLOOM_176B, LLAMA_2_70B, LLAMA_3_1_8B, LLAMA_3_2_3B, ModelShape, model_shape


@pytest.mark.parametrize(
    ("shape", "billions", "kv_bytes"),
    [
        (LLAMA_2_70B, 68.98, 327_680),
        (BLOOM_176B, 176.25, 4_014_080),
        (LLAMA_3_1_8B, 8.03, 131_072),
        (LLAMA_3_2_3B, 3.21, 114_688),
    ],
    ids=lambda value: value.name if isinstance(value, ModelShape) else None,
)
def test_parameters_and_kv_bytes_are_the_published_ones(shape: ModelShape, billions: float, kv_bytes: int) -> None:
    assert shape.parameters() / 1e9 == pytest.approx(billions, abs=0.005)
    assert shape.kv_bytes_per_token("bfloat16") == kv_bytes


def test_llama_2_70b_takes_128_and_a_half_gib_of_weights() -> None:
    assert LLAMA_2_70B.weight_bytes("bfloat16") / 1024**3 == pytest.approx(128.5, abs=0.05)


def test_a_token_costs_about_two_operations_per_parameter() -> None:
    assert LLAMA_2_70B.flops_per_token() / LLAMA_2_70B.parameters() == pytest.approx(2.0, rel=0.02)


def test_float32_doubles_bytes_and_leaves_operations_alone() -> None:
    assert LLAMA_3_2_3B.weight_bytes("float32") == 2 * LLAMA_3_2_3B.weight_bytes("bfloat16")
    assert LLAMA_3_2_3B.kv_bytes_per_token("float32") == 229_376


def test_an_untied_input_embedding_is_not_read_in_every_step() -> None:
    assert LLAMA_3_1_8B.weight_bytes() - LLAMA_3_1_8B.read_bytes_per_step() == 128256 * 4096 * 2
    assert LLAMA_3_2_3B.read_bytes_per_step() == LLAMA_3_2_3B.weight_bytes()


def test_a_model_is_found_in_any_case_and_a_typo_gets_the_nearest_name() -> None:
    assert model_shape("Llama-2-70B") is LLAMA_2_70B
    with pytest.raises(ValueError, match=r"llama-3\.1-8b"):
        model_shape("llama-3.1-8")


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of kv_heads"):
        ModelShape(
            name="odd",
            architecture="LlamaForCausalLM",
            layers=1,
            hidden_size=96,
            heads=3,
            kv_heads=2,
            head_dim=32,
            intermediate_size=128,
            vocab_size=100,
            max_positions=128,
            tied=True,
        )
