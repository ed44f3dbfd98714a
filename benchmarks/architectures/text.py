"""Encoders of text, and encoders with a decoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.architectures import FORWARD, Example
from benchmarks.architectures.calls import VOCABULARY, First, ids

ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SEQUENCES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
T5: dict[str, Any] = {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}

ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", ENCODER),
    "roberta": ("Roberta", ENCODER),
    "distilbert": ("DistilBert", {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
    "albert": ("Albert", {**ENCODER, "embedding_size": 16}),
    "electra": ("Electra", {**ENCODER, "embedding_size": 16}),
    "deberta": ("DebertaV2", {**ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "mpnet": ("MPNet", ENCODER),
    "fnet": ("FNet", ENCODER),
    "modernbert": ("ModernBert", {**ENCODER, "local_attention": 4}),
    "nystromformer": ("Nystromformer", {**ENCODER, "num_landmarks": 3, "segment_means_seq_len": 12}),
    "xlnet": ("XLNet", {"vocab_size": VOCABULARY, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
    "convbert": ("ConvBert", {**ENCODER, "embedding_size": 16}),
}
PAIRS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", T5),
    "switch_transformers": ("SwitchTransformers", {**T5, "num_experts": 2, "expert_capacity": 4}),
    "bart": ("Bart", SEQUENCES),
    "marian": ("Marian", {**SEQUENCES, "decoder_vocab_size": VOCABULARY}),
    "m2m_100": ("M2M100", SEQUENCES),
}


def made(config: str, options: dict[str, Any]) -> Any:
    """The plain model of a configuration, without a head."""
    import transformers

    return getattr(transformers, f"{config}Model")(getattr(transformers, f"{config}Config")(**options))


def encoder(config: str, options: dict[str, Any]) -> Callable[[], Example]:
    """Hidden states of a text."""
    return lambda: (First(made(config, options)), {"input_ids": ids()})


def pair(config: str, options: dict[str, Any]) -> Callable[[], Example]:
    """Hidden states of the decoder, for a text and the start of another."""
    return lambda: (
        First(made(config, options), use_cache=False),
        {"input_ids": ids(), "decoder_input_ids": ids(5)},
    )


FORWARD.update({name: encoder(*row) for name, row in ENCODERS.items()})
FORWARD.update({name: pair(*row) for name, row in PAIRS.items()})
