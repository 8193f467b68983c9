"""`Benchmark`: what a public benchmark is, as a value. It opens as a `Task`, and any split of it as Samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.boundary import Boundary, boundary_of_benchmark, drawn
from lorgnette.data.sources.reading.shards import folder_of
from lorgnette.data.sources.reading.values import fetched
from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.benchmark_prompts import PromptForm, PromptTemplate, Question, Variant, question_sample
from lorgnette.eval.benchmark_rows import Rows, find_shards
from lorgnette.eval.fewshot import POOL, Choose, FewShot
from lorgnette.eval.models.base import Model
from lorgnette.eval.task import Task
from lorgnette.sample import Sample
from lorgnette.untrusted import quoted

BenchmarkRow = Mapping[str, Any]
Role = Literal["vqav2", "textvqa", "okvqa", "coco"]
"""The four whose mean is the score of the paper's ablations (section 3)."""


class Pass(NamedTuple):
    """One pass of a question in circular evaluation."""

    row: int
    turns: int
    """By how many places its options are moved."""
    group: Hashable
    """Key that the passes of one question share."""


@dataclass(frozen=True)
class Split:
    """One split of a benchmark."""

    files: str
    """Its parquet files, as a glob below the root of the data."""
    size: int | None = None
    """Rows of the whole split."""
    data: str | None = None
    """Hub id of the split, where it differs from the benchmark's."""
    answers: bool = True
    """True if the answers are public; otherwise only the benchmark's own server can score."""
    public: bool = True
    """True if the split is known to be in public parquet files; otherwise its place must be given (`--data`)."""


@dataclass(frozen=True)
class Asking:
    """Settings of an evaluation. All are stored beside the answers."""

    variant: Variant = "paper"
    form: PromptForm | None = None
    """None for a document where there are shots, and a conversation where there are none."""
    shots: int = 0
    choose: Choose = "random"
    pool: int = POOL
    seed: int = 0
    choices: Literal["generation", "likelihood"] = "generation"
    """Method of multiple choice: the option that the model generates, or the one with the highest likelihood."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Places of benchmarks (`vqav2`) or splits (`vqav2/train`): a file, a folder, a URL or a hub id."""
    max_tokens: int | None = None
    """The longest answer; None for the benchmark's own limit, which leaves no room for a thought before the answer."""
    incomplete: bool = False
    """Accept data with another number of rows than the benchmark has."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark: where it is, how a row reads, how it is asked and judged."""

    name: str
    about: str
    """Short description: the kind of question and the kind of image."""
    data: str
    """A hub id, such as `lmms-lab/VQAv2`, or a path."""
    splits: Mapping[str, Split]
    split: str
    """The split that is asked if none is named."""
    read: Callable[[BenchmarkRow], Question]
    """A row in the public columns to a question. Raises: Refused."""
    metric: str
    """A name in `METRICS`, for every variant that `metrics` does not name."""
    licence: str
    chat: Mapping[Variant, PromptTemplate]
    base: PromptTemplate
    """The wording for a model that continues documents, the same for each variant."""
    train: str | None = None
    """The split that shots are drawn from and training reads; None if the benchmark has none."""
    max_tokens: int = 16
    passes: Callable[[Rows], Sequence[Pass]] | None = None
    """For circular evaluation: what is asked; None for each row once."""
    metrics: Mapping[Variant, str] = field(default_factory=dict)
    """The metric of a variant, where its code scores otherwise than `metric`."""
    role: Role | None = None
    """Whose part it plays in the mean of the paper's ablations."""

    def open(self, asking: Asking, split: str | None = None, encoder: Model | None = None) -> Task:
        """The benchmark as a task. encoder: the model whose vision features retrieve shots.

        Raises: SettingsError for a split that there is not, DataError if the data are not there or not whole.
        """
        split = split or self.split
        form: PromptForm = asking.form or ("base" if asking.shots else "chat")
        template = self.template(form, asking.variant)
        samples = self.samples(asking, split, form)
        return Task(
            name=self.name,
            samples=samples,
            metric=self.metric_of(asking.variant) if self.splits[split].answers else "unscored",
            split=split,
            splits=tuple(self.splits),
            licence=self.licence,
            prompt=template.described(),
            answer_by=asking.choices,
            max_tokens=asking.max_tokens or self.max_tokens,
            stop=("\n",) if form == "base" else (),
            form=form,
            variant=asking.variant,
            shots=self._shots(asking, form, template, encoder),
            groups=samples.groups,
        )

    def template(self, form: PromptForm, variant: Variant) -> PromptTemplate:
        """Prompt template of the questions."""
        return self.base if form == "base" else self.chat[variant]

    def metric_of(self, variant: Variant) -> str:
        """The name of the metric by which a variant's answers are scored."""
        return self.metrics.get(variant, self.metric)

    def samples(self, asking: Asking, split: str, form: PromptForm) -> BenchmarkSamples:
        """A split as Samples whose answers are to be learned. Raises: SettingsError, DataError."""
        if split not in self.splits:
            raise SettingsError(f"{self.name} has no split {split!r}; it has {', '.join(self.splits)}")
        about = self.splits[split]
        root = asking.data.get(f"{self.name}/{split}") or asking.data.get(self.name) or about.data or self.data
        if not about.public and root == self.data:
            raise DataError(
                f"{self.name}: its split {split} is in no public parquet files that lorgnette knows; say where you"
                f" have it, as --data {self.name}/{split}=PATH"
            )
        others = [other.files for name, other in self.splits.items() if name != split]
        rows = Rows(find_shards(root, about.files, others))
        if not asking.incomplete and about.size not in (None, len(rows)):
            raise DataError(
                f"{self.name}: {root} holds {len(rows):,} rows of split {split}, not {about.size:,}; get all its files,"
                " or say that it is incomplete (--incomplete)"
            )
        place = root if os.path.exists(root) else folder_of(rows.shards.paths[0])
        line, template = boundary_of_benchmark(place), self.template(form, asking.variant)
        return BenchmarkSamples(self, rows, template, form, line, about.answers)

    def _shots(
        self, asking: Asking, form: PromptForm, template: PromptTemplate, encoder: Model | None
    ) -> FewShot | None:
        if form == "chat" and not asking.shots:
            return None
        examples: Sequence[Sample] = ()
        if asking.shots:
            if self.train is None:
                raise SettingsError(f"{self.name} has no training split to draw shots from; ask without shots")
            examples = self.samples(asking, self.train, form)
        source = f"{self.name}/{self.train}" if asking.shots else ""
        return FewShot(
            examples, asking.shots, asking.choose, asking.seed, asking.pool, source, template.instruction, encoder
        )


class BenchmarkSamples(Sequence[Sample]):
    """Rows of a benchmark as Samples, read when they are asked for. A row that cannot be used raises `Refused`.

    Rows are made by others: what they name is read or fetched within `line`, and images come as the bytes of files.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        rows: Rows,
        template: PromptTemplate,
        form: PromptForm,
        line: Boundary,
        answered: bool = False,
    ) -> None:
        """answered: whether answers are public. A row without one is then refused: it could only be scored as wrong."""
        self.benchmark, self.rows, self.template, self.form, self.line = benchmark, rows, template, form, line
        self.answered = answered
        self.passes = benchmark.passes(rows) if benchmark.passes else None
        self.groups: Sequence[Hashable] | None = self.passes and [one.group for one in self.passes]

    def __len__(self) -> int:
        return len(self.rows) if self.passes is None else len(self.passes)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        row, turns, _ = Pass(index, 0, index) if self.passes is None else self.passes[index]
        try:
            question = self._read(self.rows[row])
            question = question.rotated(turns) if turns else question
            return question_sample(question, self.template, self.form, f"{self.benchmark.name}/{question.id or row}")
        except Refused as refused:
            raise Refused(refused.reason, f"row {row}: {refused.detail}") from None

    def _read(self, row: BenchmarkRow) -> Question:
        """Raises: Refused, whatever the row holds."""
        try:
            with drawn(self.line):
                question = self.benchmark.read(row)
                images = tuple(fetched(one, f"image {number}") for number, one in enumerate(question.images))
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError) as error:
            raise Refused("wrong type", f"not as {self.benchmark.name} has it: {quoted(str(error))}") from None
        if self.answered and not question.answers:
            raise Refused("no answer", "no reference answer to score against")
        return replace(question, images=images)
