"""Models of speech, sound and time series."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.architectures import Example, architecture
from benchmarks.architectures.calls import First, ids
from benchmarks.architectures.text import SEQUENCES, made

WAVES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
    "conv_dim": [16, 16, 16], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 2], "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "vocab_size": 32,
}  # fmt: skip


@architecture
def whisper() -> Example:
    """Speech to text: convolutions over a spectrogram, then an encoder and a decoder."""
    options = {**SEQUENCES, "num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 32}
    inputs = {"input_features": torch.randn(1, 8, 32), "decoder_input_ids": ids(5)}
    return First(made("Whisper", options), use_cache=False), inputs


@architecture
def wav2vec2() -> Example:
    """Features of a waveform: strided convolutions, positions by a grouped one with normalised weights."""
    return First(made("Wav2Vec2", WAVES)), {"input_values": torch.randn(1, 400)}


@architecture
def hubert() -> Example:
    return First(made("Hubert", WAVES)), {"input_values": torch.randn(1, 400)}


@architecture
def wavlm() -> Example:
    """The same with gated relative positions."""
    return First(made("WavLM", WAVES)), {"input_values": torch.randn(1, 400)}


@architecture
def audio_spectrogram_transformer() -> Example:
    options = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64, "patch_size": 8,
        "frequency_stride": 8, "time_stride": 8, "max_length": 32, "num_mel_bins": 16,
    }  # fmt: skip
    return First(made("AST", options)), {"input_values": torch.randn(1, 32, 16)}


@architecture
def encodec() -> Example:
    """A codec: convolutions, an LSTM, and codes by the nearest of a book."""
    options = {"num_filters": 4, "hidden_size": 16, "upsampling_ratios": [4, 2], "codebook_size": 16,
               "codebook_dim": 16, "target_bandwidths": [24.0], "num_lstm_layers": 1}  # fmt: skip
    return First(made("Encodec", options), return_dict=False), {"input_values": torch.randn(1, 1, 64)}


@architecture
def patchtst() -> Example:
    """Time series in patches."""
    options = {"num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8, "d_model": 32,
               "num_attention_heads": 4, "num_hidden_layers": 1, "ffn_dim": 64}  # fmt: skip
    return First(made("PatchTST", options)), {"past_values": torch.randn(1, 32, 2)}
