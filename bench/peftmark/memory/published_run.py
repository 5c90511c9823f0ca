"""A training step by its conditions, as a ledger of figures states it, and the request it makes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import ValidationError, model_validator
from pydantic_core import PydanticCustomError

from peftmark.catalog.architectures import ARCHITECTURES, LANGUAGE_MODELS
from peftmark.catalog.methods import method_of
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.core.strict import Strict
from peftmark.memory.forecast import Request
from peftmark.record.job import Form, Job
from peftmark.record.recipe import AdaLoraSchedule, Optimizer, Recipe
from peftmark.suite.faults import fault_lines
from peftmark.suite.names import MethodName, QuantizationName, known
from peftmark.suite.schema import TARGET_SETS, Count, Share, Word


def fault(message: str) -> PydanticCustomError:
    """A fault of a ledger, for pydantic to place."""
    return PydanticCustomError("figure", "{message}", {"message": message})


class Scenario(Strict):
    """A training step: language models are trained on unpadded rows of one length, encoders on
    padded ones with a head of two classes.

    Attributes:
        rank: of methods that have one; AdaLoRA's is the target, `init_rank` what it starts with.
        targets, dropout: of methods with an adapter.
        double_quantization: of 4-bit bases.
        weights: type of base weights that are not quantised; fp16 takes what bf16 does.
        autocast: matrix products in bf16 by autocast; without it each runs in its inputs' type.
        batch, length: rows and tokens of a batch.
        accumulation: batches before a step; any number above 1 peaks as 2 do.
        fused_loss: logits made and dropped in chunks.
    """

    model: Annotated[str, known("model", [*ARCHITECTURES, *LANGUAGE_MODELS])]
    method: MethodName
    rank: Count | None = None
    init_rank: Count | None = None
    targets: Annotated[str, known("targets", TARGET_SETS)] | list[Word] | None = None
    dropout: Share | None = None
    quantization: QuantizationName
    double_quantization: bool | None = None
    weights: Literal["fp32", "bf16"]
    autocast: bool
    batch: Count
    length: Count
    checkpointing: bool
    optimizer: Optimizer
    accumulation: Count
    attention: Literal["sdpa", "eager"]
    fused_loss: bool = False

    @model_validator(mode="after")
    def _fields_that_apply(self) -> Scenario:
        needed = wanted(self.method, self.quantization)
        for name in CONDITIONAL:
            given = getattr(self, name) is not None
            if given and name not in needed:
                raise fault(f"{name} means nothing for {self.method} on {self.quantization}")
            if name in needed and not given:
                raise fault(f"{name} must be stated, or stand under `unstated`")
        method = method_of(self.method)
        assert method is not None
        if self.quantization not in method.quantizations:
            raise fault(f"{self.method} can't sit on {self.quantization}")
        return self

    def request(self) -> Request:
        """The prediction to ask for, as on a GPU."""
        language = self.model in LANGUAGE_MODELS
        job = Job(
            suite="",
            suite_version=0,
            profile="",
            model="",
            model_identity="",
            task="",
            task_version=0,
            data_fingerprint="",
            metric="",
            target=None,
            method=self.method,
            size=self.rank,
            quantization=self.quantization,
            seed=0,
            device="cuda",
            threads=1,
            recipe=self._recipe(),
        )
        # As published: full fine-tuning has its gradients and states in the weights' type.
        form = Form(self.attention, self.fused_loss, pure=True)
        config = LANGUAGE_MODELS[self.model] if language else ARCHITECTURES[self.model]
        return Request(
            job,
            config,
            "language" if language else "classification",
            1 if language else 2,
            self.batch,
            self.length,
            padded=not language,
            form=form,
            flops=False,
        )

    def _recipe(self) -> Recipe:
        """The step's settings; those of data and evaluation, which it has none of, at any value."""
        targets = tuple(self.targets) if isinstance(self.targets, list) else self.targets
        return Recipe(
            steps=1000,
            batch_size=self.batch * min(self.accumulation, 2),
            gradient_accumulation=min(self.accumulation, 2),
            weights=self.weights,
            learning_rate=1e-3,
            schedule="constant",
            warmup_steps=0,
            weight_decay=0.01,
            max_grad_norm=1.0,
            max_length=self.length,
            precision="bf16" if self.autocast else "fp32",
            optimizer=self.optimizer,
            gradient_checkpointing=self.checkpointing,
            window_batches=1,
            train_rows=None,
            selection_rows=0,
            eval_rows=None,
            eval_every=1,
            eval_batch_size=1,
            train_pooler=False,
            targets=targets,
            alpha=None if self.targets is None else 32.0,
            dropout=self.dropout,
            double_quantization=self.double_quantization,
            adalora=self._adalora(),
            options=_options(self.method),
        )

    def _adalora(self) -> AdaLoraSchedule | None:
        """Far from its end, so that no rank is pruned yet: the most it takes."""
        if self.init_rank is None:
            return None
        return AdaLoraSchedule(
            self.init_rank,
            tinit=100,
            tfinal=100,
            delta_t=10,
            beta1=0.85,
            beta2=0.85,
            orthogonal_weight=0.5,
        )

    def text(self, omit: Collection[str] = ()) -> str:
        """The run in one line, but for the fields to omit."""
        targets = self.targets if isinstance(self.targets, str) else ", ".join(self.targets or ())
        parts = (
            ("model", self.model),
            ("method", self.method),
            ("rank", f"r {self.rank}" if self.rank else ""),
            ("init_rank", f"from r {self.init_rank}" if self.init_rank else ""),
            ("targets", f"on {targets}" if targets else ""),
            ("quantization", self.quantization if self.quantization != "none" else ""),
            ("double_quantization", "double quantisation" if self.double_quantization else ""),
            ("weights", f"{self.weights} weights"),
            ("autocast", "bf16 autocast" if self.autocast else "no autocast"),
            ("batch", f"batch {self.batch}"),
            ("length", f"{self.length:,} tokens"),
            ("checkpointing", "checkpointing" if self.checkpointing else "no checkpointing"),
            ("optimizer", self.optimizer),
            ("accumulation", f"accumulation {self.accumulation}" if self.accumulation > 1 else ""),
            ("attention", self.attention),
            ("fused_loss", "loss in chunks" if self.fused_loss else ""),
        )
        return ", ".join(text for name, text in parts if text and name not in omit)


CONDITIONAL = ("rank", "init_rank", "targets", "dropout", "double_quantization")


def wanted(method: str, quantization: str) -> set[str]:
    """Which of the fields that don't always apply do so for a method on a base."""
    found = method_of(method)
    if found is None:
        return set()
    names = {name for name in found.settings if name in CONDITIONAL}
    names |= {"rank"} if found.size else set()
    names |= {"init_rank"} if found.schedule else set()
    known_one = QUANTIZATIONS.get(quantization)
    doubles = known_one is not None and known_one.double
    return names | ({"double_quantization"} if doubles else set())


def _options(method: str) -> dict[str, Any]:
    found = method_of(method)
    return found.resolved_options({}) if found else {}


def filled(scenario: Mapping[str, Any], chosen: Mapping[str, Any]) -> Scenario:
    """A scenario with chosen values for those of its fields that are left out and apply."""
    all_of = {**chosen, **scenario}
    needed = wanted(str(all_of.get("method")), str(all_of.get("quantization")))
    kept = {k: v for k, v in all_of.items() if k in scenario or k in needed or k not in CONDITIONAL}
    try:
        return Scenario.model_validate(kept)
    except ValidationError as error:
        raise fault("scenario: " + "; ".join(fault_lines(error))) from None
