"""A run and its samplers: [run], [broker], [model], [data], [sampling], [actor], [weights], [metrics], [tracing]."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from common.settings.section import Dtype, Fraction, Positive, Section


class RunSettings(Section):
    """What this run is and where its files go."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "hero"
    """Name of the run; letters, digits, `_.-`."""
    folder: Path = Path("runs/hero")
    """Settings, logs, reward log, checkpoints, export, summary.json and curves.png go here."""
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,96}$")] | None = None
    """Key prefix in the broker. `hero up` makes one and keeps it in the run folder; a worker on
    another host is given it."""
    steps: Positive = 250
    """Batches to train, one weight publication each."""
    seed: int = 0
    """Of generated problems, the order of prompts, initialization, and what is sampled outside of the run itself."""


class BrokerSettings(Section):
    """Redis >= 7.0 or Valkey."""

    url: str | None = None
    """redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// address. Unset: REDIS_URL, else a
    server that `hero up` starts."""
    claim_after_ms: Annotated[int, Field(ge=500)] = 30_000
    """A lease that was not renewed for so long is taken over by another worker."""
    max_deliveries: Positive = 3
    """After so many failed deliveries a message goes to the dead-letter stream."""
    memory_mb: Annotated[int, Field(ge=64)] = 1024
    """maxmemory of a server that `hero up` starts."""


class ModelSettings(Section):
    """The policy before the first step."""

    policy: str = ""
    """Folder in Hugging Face layout, or a hub name."""
    revision: str | None = None
    trust_remote_code: bool = False
    """Runs code that came with the model. Off unless you read that code."""


class DataSettings(Section):
    """Prompts with their answers."""

    train: str = ""
    """A JSONL file (.gz too), `hub:NAME` for a Hugging Face data set, or `reasoning-gym`."""
    hub_config: str | None = None
    hub_split: str = "train"
    question: str = "question"
    """Field that holds the prompt."""
    answer: str = "answer"
    """Field that holds the gold answer; text behind a last `####` is used alone (GSM8K)."""
    solution: str | None = None
    """Field that holds a worked solution (for `hero sft`); may be the answer's, as in GSM8K."""
    system_prompt: str = ""
    """Goes before every question, for sampling and training alike."""
    max_prompt_tokens: Positive = 1024
    """A longer prompt is a bad line: counted and left out."""
    order: Literal["shuffle", "difficulty"] = "shuffle"
    """`shuffle`: every row once in an epoch. `difficulty`: each about as often as the policy failed at it lately."""
    limit: Positive | None = None
    """Use only so many rows (JSONL, hub), or generate so many problems (reasoning-gym)."""
    families: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - pydantic copies it
    """reasoning-gym families with their own settings, e.g. {chain_sum = {min_terms = 2}}."""


class SamplingSettings(Section):
    """How training completions are sampled. Anything that truncates the distribution is refused:
    the behaviour log-probabilities would not be the policy's."""

    completions: Positive = 8
    """Completions per prompt, the group size N."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    max_tokens: Positive = 512
    """A longer completion is cut (finish reason `length`)."""
    top_p: float = 1.0
    top_k: int = 0

    @model_validator(mode="after")
    def _untruncated(self) -> SamplingSettings:
        if self.top_p != 1.0 or self.top_k > 0:
            raise ValueError(
                f"top_p = {self.top_p}, top_k = {self.top_k}: training needs the untruncated distribution, or every "
                "importance ratio is wrong; set top_p = 1 and top_k = 0 (evaluation has its own: eval.top_p)"
            )
        return self


class ActorSettings(Section):
    """Rollout actors (vLLM)."""

    count: Annotated[int, Field(ge=0)] = 1
    """Actors that `hero up` starts; more may join from other hosts at any time."""
    groups_in_flight: Positive = 32
    """Tickets that one actor works on at once; with sampling.completions this is vLLM's max_num_seqs."""
    dtype: Dtype = "float32"
    max_model_len: Positive = 2048
    """Prompt and completion together, in tokens."""
    kv_cache_gib: Annotated[float, Field(gt=0)] = 1.0
    """KV cache on a CPU."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.85
    tensor_parallel: Positive = 1
    threads: Positive = 1
    """OpenMP threads of one actor."""
    own_cores: bool = False
    """`hero up` gives each actor a core for every thread and the rest to all others: an eighth faster where
    actors compute on the CPU. Not for two runs on one machine, which would take the same cores."""
    weights_from: Literal["auto", "folder", "broker", "ring"] = "auto"
    """Where new weights come from. `folder`: the learner's, seen from here at the same path. `broker`: fetched out of
    weights.url. `ring`: broadcast by the learner to all such actors at once, by NCCL between GPUs, else by gloo.
    `auto`: from the folder, and from the broker where that cannot be read."""
    on_new_weights: Literal["keep", "finish", "abort"] = "keep"
    """What becomes of completions that are being sampled. `keep`: they go on with the new weights, their KV cache made
    anew. `finish`: they end first and nothing new is begun, so each has one policy. `abort`: they begin again, each
    once, since what takes longer than a step of the learner's would never end."""
    max_logprob_difference: Annotated[float, Field(gt=0)] = 0.02
    """Largest allowed |engine - learner| log-probability of the fixed check sequences after an update;
    beyond it the actor stops with an error. float32 reaches 1e-4; bfloat16 needs about 0.15."""


class WeightsSettings(Section):
    """How new weights travel from the learner to the actors."""

    folder: Path | None = None
    """Folder that learner and actors share. Unset: one in /dev/shm, or in the run folder without it."""
    keep: Annotated[int, Field(ge=2)] = 3
    """Published versions that stay there."""
    url: str | None = None
    """Broker that holds weights for actors without that folder; best one without persistence. Unset: broker.url."""
    relay: bool = False
    """Actors give each other what they have fetched, over TCP without encryption, on a free port of each host: however
    many hosts join at once, few of them read whole versions from the broker."""
    cache: Path | None = None
    """Folder of an actor's host for what it fetches from there. Unset: one in /dev/shm, or in the run folder."""


class MetricsSettings(Section):
    """/metrics, /livez and /readyz of each process; the learner's metrics for TensorBoard and W&B."""

    port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Where a process answers; 0 takes a free port, which its log names. Unset: nowhere. `hero up` gives it to the
    learner, the next ones to actors and then scorers."""
    host: str = "127.0.0.1"
    """Of which address of this host; 0.0.0.0 for all: nobody is asked for a password there."""
    stalled_after_s: Annotated[float, Field(gt=0)] = 900.0
    """/livez fails when the loop has not turned for so long. A turn may be a whole optimizer step, or an engine's
    start."""
    tensorboard: bool = False
    """The learner's metrics and evaluations also as event files, in `tensorboard` of the run folder. Needs
    hero-rl[tensorboard]."""
    wandb: Literal["off", "offline", "online"] = "off"
    """The same for W&B, under the run's id. `offline`: into `wandb` of the run folder, for `wandb sync`. Key, entity
    and name by its own WANDB_API_KEY, WANDB_ENTITY, WANDB_NAME (unset: run.name). Needs hero-rl[wandb]."""
    wandb_project: Annotated[str, Field(min_length=1)] | None = None
    """Unset: WANDB_PROJECT, else hero-rl."""


class TracingSettings(Section):
    """Traces of tickets, by OpenTelemetry's OTLP over HTTP. Needs hero-rl[tracing]."""

    share: Fraction = 0.0
    """Of the tickets of training: each is a trace, from issue to commit, of the learner, an actor and a scorer. 0 is
    off. The same tickets in every process that has the same share."""
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/]")] | None = None
    """Of a collector, http://collector:4318. Unset: OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4318."""

    @model_validator(mode="after")
    def _no_secret(self) -> TracingSettings:
        if self.endpoint and re.search("[@?]", self.endpoint):
            raise ValueError(
                "endpoint has a user, a password or a query: every process keeps its settings in the run folder; set "
                "OTEL_EXPORTER_OTLP_HEADERS instead"
            )
        return self
