"""The decoder: one implementation of the Llama family (Llama, Mistral, SmolLM, Qwen, Phi-3, Gemma 1 to 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.context import Context
from lorgnette.model.inference.compiled_layers import check_compiled
from lorgnette.model.inference.prepared_layers import PreparedDecoder, normed
from lorgnette.model.layers import GeGLU, RMSNorm, Stack, SwiGLU
from lorgnette.model.ops.attention import attends_by_rows, attention
from lorgnette.model.ops.grouped_attention import attention_of_rows
from lorgnette.model.ops.soft_cap import soft_cap
from lorgnette.model.rope import rotate, rotation

Before = Callable[[int, Tensor, Context], Tensor]
"""From a layer's index, the states that would enter it, and the pass, to the states that do: T,D."""


Layer = Callable[[Tensor, Context], Tensor]
"""From hidden states and the pass to hidden states: a `DecoderLayer`, or the same prepared."""


class Decoder(Stack):
    """Embedded tokens to hidden states. Documents see only themselves."""

    def __init__(self, config: LanguageConfig, extra_vocabulary: int):
        super().__init__()
        self.config = config
        self.embedding = TokenEmbedding(config.vocabulary, extra_vocabulary, config.width)
        self.embedding.scaled = config.scaled_embedding
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps, offset=config.norm_offset)
        tied = config.tied_embeddings
        self.head = self.embedding if tied else TokenEmbedding(config.vocabulary, extra_vocabulary, config.width)
        self.head.cap = config.logit_cap
        self.prepared: PreparedDecoder | None = None
        """The same layers for passes with a KV cache and without gradients; see `prepared.prepare`."""

        self.compiled = False
        """Decode steps run through a library that a C compiler has made; see `compiled_layers.compile_decoder`."""
        self.quantization: str | None = None
        """Name of what the layers' weights have been rounded to; see `quantised.quantise`."""

    def blocks(self) -> Iterable[nn.Module]:
        return self.layers

    def forward(self, x_TD: Tensor, context: Context, before: Before | None = None) -> Tensor:
        """Embedded tokens (T,D) to normed hidden states, of the rows that are read.

        before: what stands before each layer, by its index; see `Fusion.before`.
        """
        if context.cache is not None:
            context.cache.begin(context.documents, x_TD)
        where = context.positions_T, context.longest, x_TD.dtype
        rotary = local = rotation(self.config, *where)
        if self.config.local_rope_theta is not None:
            local = rotation(self.config.local, *where)
        context = dataclasses.replace(context, rotary=rotary, local_rotary=local)
        if self.prepared is not None and context.cache is not None and not torch.is_grad_enabled():
            with torch.inference_mode():
                x_TD = normed(self._run(self.prepared.steps or self.prepared.layers, x_TD, context, before), self.norm)
        else:
            x_TD = self.norm(self._run(self.layers, x_TD, context, before))
        if context.cache is not None:
            context.cache.advance()
        return x_TD

    def _run(self, layers: Iterable[Layer], x_TD: Tensor, context: Context, before: Before | None) -> Tensor:
        all_rows, last = context.all_rows(), len(self.layers) - 1
        for index, layer in enumerate(layers):
            x_TD = before(index, x_TD, all_rows) if before else x_TD
            x_TD = self.run(layer, x_TD, context if index == last else all_rows)
        return x_TD

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Decoder:
        """Convert or move all parameters, which are no views of joined ones then."""
        self.prepared = None
        if self.compiled:
            became = fn(torch.empty(0))
            check_compiled(became.device, became.dtype)
        return super()._apply(fn, recurse)


class TokenEmbedding(nn.Module):
    """Rows for tokens: the pre-trained `table`, which may be frozen, and after it the `extra` ones, always trained."""

    scaled = False
    """Rows are multiplied by the root of their width (Gemma)."""
    cap: float | None = None
    """Scores become cap * tanh(score / cap) (Gemma 2)."""

    def __init__(self, rows: int, extra: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.empty(rows, width))
        self.extra = nn.Parameter(torch.empty(extra, width))

    @property
    def tables(self) -> tuple[Tensor, ...]:
        return (self.table, self.extra) if len(self.extra) else (self.table,)

    def forward(self, tokens_T: Tensor) -> Tensor:
        """The rows of these tokens: T,D."""
        rows_TD = self._rows(tokens_T)
        if not self.scaled:
            return rows_TD
        # the factor is rounded to the type of the weights, as in transformers
        return rows_TD * torch.tensor(rows_TD.shape[-1] ** 0.5, dtype=rows_TD.dtype, device=rows_TD.device)

    def _rows(self, tokens_T: Tensor) -> Tensor:
        rows = len(self.table)
        if not len(self.extra):
            return F.embedding(tokens_T, self.table)
        base_TD = F.embedding(tokens_T.clamp(max=rows - 1), self.table)
        extra_TD = F.embedding((tokens_T - rows).clamp(min=0), self.extra)
        return torch.where((tokens_T >= rows)[:, None], extra_TD, base_TD)

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """The score of every row for every hidden state: T,K."""
        scores_TK = torch.cat([F.linear(hidden_TD, table) for table in self.tables], -1)
        return scores_TK if self.cap is None else soft_cap(scores_TK, self.cap)


class DecoderLayer(nn.Module):
    """Causal attention and gated MLP, each behind its norm, and in some families before another."""

    def __init__(self, config: LanguageConfig, index: int):
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps, offset=config.norm_offset)
        self.attention = DecoderAttention(config, index)
        self.mlp_norm = RMSNorm(config.width, config.norm_eps, offset=config.norm_offset)
        gated_mlp = SwiGLU if config.activation == "silu" else GeGLU
        self.mlp = gated_mlp(config.width, config.mlp_width)
        if config.post_norms:
            self.attention_post_norm: nn.Module = RMSNorm(config.width, config.norm_eps, offset=config.norm_offset)
            self.mlp_post_norm: nn.Module = RMSNorm(config.width, config.norm_eps, offset=config.norm_offset)
        else:
            self.attention_post_norm, self.mlp_post_norm = nn.Identity(), nn.Identity()

    def forward(self, x_TD: Tensor, context: Context) -> Tensor:
        """Every token is attended to; the rows that are read are returned."""
        attended_TD = self.attention_post_norm(self.attention(self.attention_norm(x_TD), context))
        x_TD = attended_TD + (x_TD if context.rows_T is None else x_TD.index_select(0, context.rows_T))
        out: Tensor = x_TD + self.mlp_post_norm(self.mlp(self.mlp_norm(x_TD)))
        return out


class DecoderAttention(nn.Module):
    def __init__(self, config: LanguageConfig, index: int):
        super().__init__()
        self.index, self.head_width, self.window = index, config.head_width, config.window_of(index)
        self.cap = config.score_cap
        self.query_scale = (config.head_width / (config.query_pre_attn_scalar or config.head_width)) ** 0.5
        """Factor of the queries, as attention itself divides scores by the root of the head width."""
        self.turns = config.no_rope_every is None or (index + 1) % config.no_rope_every != 0
        inner, kv_inner = config.heads * config.head_width, config.kv_heads * config.head_width
        self.query = nn.Linear(config.width, inner, bias=config.attention_bias)
        self.key = nn.Linear(config.width, kv_inner, bias=config.attention_bias)
        self.value = nn.Linear(config.width, kv_inner, bias=config.attention_bias)
        self.output = nn.Linear(inner, config.width, bias=False)
        if config.qk_norm:
            self.query_norm: nn.Module = RMSNorm(config.head_width, config.norm_eps, offset=config.norm_offset)
            self.key_norm: nn.Module = RMSNorm(config.head_width, config.norm_eps, offset=config.norm_offset)
        else:
            self.query_norm, self.key_norm = nn.Identity(), nn.Identity()

    def forward(self, x_TD: Tensor, context: Context) -> Tensor:
        """Attention output of the rows that are read."""
        rotary = context.rotary if self.window is None else context.local_rotary
        assert rotary is not None
        (cos, sin), documents, cache, rows_T = rotary, context.documents, context.cache, context.rows_T
        k_TGN = self.key_norm(self.key(x_TD).unflatten(-1, (-1, self.head_width)))
        k_TGN = rotate(k_TGN, cos, sin) if self.turns else k_TGN
        v_TGN = self.value(x_TD).unflatten(-1, (-1, self.head_width))
        few_T = rows_T if cache is None and attends_by_rows(x_TD) else None
        if few_T is not None:
            x_TD, cos, sin = (x.index_select(0, few_T) for x in (x_TD, cos, sin))
        q_THN = self.query_norm(self.query(x_TD).unflatten(-1, (-1, self.head_width)))
        q_THN = rotate(q_THN, cos, sin) if self.turns else q_THN
        q_THN = q_THN if self.query_scale == 1 else q_THN * self.query_scale
        if few_T is not None:
            out_THN = attention_of_rows(q_THN, k_TGN, v_TGN, few_T, documents, window=self.window, cap=self.cap)
        elif cache is None:
            spans = documents, documents
            out_THN = attention(q_THN, k_TGN, v_TGN, *spans, causal=True, window=self.window, cap=self.cap)
        else:
            out_THN = cache.attend(self.index, q_THN, k_TGN, v_TGN, documents)
        if rows_T is not None and few_T is None:
            out_THN = out_THN.index_select(0, rows_T)
        out: Tensor = self.output(out_THN.flatten(1))
        return out
