"""Causal language models of transformers: a prompt, and one token more with the cache that the model makes for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.architectures import FORWARD, Example
from benchmarks.architectures.calls import VOCABULARY, First, ids

DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS = {**DECODER, "head_dim": 8}
OLD = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
RECURRENT = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FINE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
SCANNED = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 4}

CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", DECODER),
    "mistral": ("Mistral", {**DECODER, "sliding_window": 4}),
    "qwen2": ("Qwen2", DECODER),
    "qwen3": ("Qwen3", HEADS),
    "gemma2": ("Gemma2", {**HEADS, "sliding_window": 4, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3Text", {**HEADS, "sliding_window": 4}),
    "phi3": ("Phi3", DECODER),
    "gpt2": ("GPT2", OLD),
    "gpt_neox": ("GPTNeoX", DECODER),
    "gptj": ("GPTJ", {**OLD, "rotary_dim": 4}),
    "opt": ("OPT", {**DECODER, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "bloom": ("Bloom", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("Falcon", {**DECODER, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "mpt": ("Mpt", {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
    "starcoder2": ("Starcoder2", DECODER),
    "olmo2": ("Olmo2", DECODER),
    "stablelm": ("StableLm", DECODER),
    "cohere": ("Cohere", DECODER),
    "glm4": ("Glm4", HEADS),
    "granite": ("Granite", DECODER),
    "nemotron": ("Nemotron", HEADS),
    "smollm3": ("SmolLM3", DECODER),
    "modernbert_decoder": ("ModernBertDecoder", {**DECODER, "local_attention": 4}),
    "mixtral": ("Mixtral", {**DECODER, **EXPERTS}),
    "qwen3_moe": ("Qwen3Moe", {**HEADS, **FINE}),
    "olmoe": ("Olmoe", {**DECODER, **FINE}),
    "granitemoe": ("GraniteMoe", {**DECODER, **EXPERTS}),
    "gpt_oss": ("GptOss", {**HEADS, **EXPERTS, "sliding_window": 4}),
    "llama4": ("Llama4Text", {**HEADS, **EXPERTS, "num_experts_per_tok": 1, "intermediate_size_mlp": 64}),
    "deepseek_v2": ("DeepseekV2", {**DECODER, **LATENT}),
    "deepseek_v3": ("DeepseekV3", {**DECODER, **LATENT}),
    "mamba": ("Mamba", {**RECURRENT, "state_size": 4}),
    "mamba2": ("Mamba2", {**RECURRENT, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1, "chunk_size": 4}),
    "falcon_mamba": ("FalconMamba", {**RECURRENT, "state_size": 4}),
    "rwkv": ("Rwkv", {**RECURRENT, "attention_hidden_size": 32}),
    "xlstm": ("xLSTM", {**RECURRENT, "num_heads": 2, "chunk_size": 4, "embedding_dim": 32, "num_blocks": 2}),
    "recurrent_gemma": ("RecurrentGemma", {**HEADS, "num_key_value_heads": 1, "lru_width": 32, "attention_window_size": 8,
                        "num_hidden_layers": 3}),
    "jamba": ("Jamba", {**DECODER, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
              "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False}),
    "bamba": ("Bamba", {**DECODER, **SCANNED, "attn_layer_indices": [1], "mamba_d_conv": 4}),
    "falcon_h1": ("FalconH1", {**DECODER, **SCANNED, "mamba_d_ssm": 64, "head_dim": 8}),
    "zamba2": ("Zamba2", {**DECODER, "mamba_d_state": 8, "n_mamba_heads": 4, "mamba_headdim": 16, "mamba_ngroups": 1,
               "chunk_size": 4, "num_mem_blocks": 1, "layers_block_type": ["linear_attention", "hybrid"],
               "num_key_value_heads": 4}),
    "qwen3_next": ("Qwen3Next", {**HEADS, **FINE, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
                   "linear_key_head_dim": 8, "linear_value_head_dim": 8, "shared_expert_intermediate_size": 16,
                   "layer_types": ["linear_attention", "full_attention"]}),
    "lfm2": ("Lfm2", {**DECODER, "layer_types": ["conv", "full_attention"]}),
    "minimax": ("MiniMax", {**HEADS, **EXPERTS, "block_size": 4}),
    "kimi_linear": ("KimiLinear", {**HEADS, **LATENT, "num_local_experts": 4, "linear_head_dim": 8, "linear_num_heads": 4,
                    "n_group": 1, "layer_types": ["linear_attention", "full_attention"]}),
}  # fmt: skip


def causal(name: str, **more: Any) -> Any:
    """A model of the table, as transformers makes it."""
    import transformers

    config, options = CAUSAL[name]
    classes: Any = transformers
    return classes.AutoModelForCausalLM.from_config(getattr(classes, f"{config}Config")(**{**options, **more}))


def prompt(name: str) -> Callable[[], Example]:
    """The logits of a prompt."""
    return lambda: (First(causal(name), use_cache=False), {"input_ids": ids()})


FORWARD.update({name: prompt(name) for name in CAUSAL})
