"""The configuration of one trial: frozen, validated as a whole, stored as JSON, identified by its hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from fer_common.errors import did_you_mean
from fer_common.faults import rule
from fer_common.frozen import Finite
from fer_data import AugmentConfig
from fer_data.augmentation.preprocess_names import Preprocessing
from fer_models import NET_CONFIGS, NetConfig, Recipe
from fer_models.configs.transfer_config import Transfer
from sweeps.errors import InputError
from tracking.record.best_epoch import KeepBest
from tracking.record.events import OBJECTIVE

_PARTS: dict[str, type[BaseModel]] = {"recipe": Recipe, "augment": AugmentConfig, "transfer": Transfer}


class TrialConfig(Finite):
    """Everything that determines what a trial computes, except the faces, the seed and the number of epochs."""

    net: NetConfig
    recipe: Recipe
    augment: AugmentConfig = AugmentConfig()
    preprocess: Preprocessing = "none"
    """Applied once to the whole data set, before any augmentation."""
    transfer: Transfer = Transfer()
    replicate: int = Field(default=0, ge=0)
    """Changes only the seed: equal configurations have equal seeds, replicates have different ones."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of training and validation; the test split is always predicted in fp32. Before the trial is recorded,
    `auto` is replaced by the precision that measured fastest for the net on the device."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    keep_best: KeepBest = OBJECTIVE
    """The metric that selects a trial's best epoch. Trials are always ranked by `val_accuracy` at that epoch."""

    @property
    def id(self) -> str:
        """12 hex digits of the SHA-256 of the content; equal configurations have equal ids."""
        content = self.model_dump(mode="json")
        # Configurations that do not use a later field keep the ids and seeds that they had before it.
        if self.keep_best == OBJECTIVE:
            del content["keep_best"]
        if not self.recipe.is_distilled:
            content["recipe"] = {name: value for name, value in content["recipe"].items() if "distill" not in name}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @classmethod
    def parse(cls, content: Mapping[str, Any], what: str) -> TrialConfig:
        """Validate `content`. Raises InputError with every fault, one per line, under the heading `what`."""
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise InputError(f"{what}: " + explain(error)) from None


def explain(error: ValidationError) -> str:
    """All faults of a configuration as text: field, rule and given value; for unknown names a suggestion."""
    faults = error.errors()
    lines = [_fault(dict(fault)) for fault in faults]
    if len(lines) == 1:
        return lines[0]
    return f"{len(lines)} faults\n" + "\n".join(f"  {line}" for line in lines)


def _fault(fault: dict[str, Any]) -> str:
    path = [str(part) for part in fault["loc"] if part not in NET_CONFIGS]
    name, value = ".".join(path), fault["input"]
    if fault["type"] == "extra_forbidden":
        return f"{name}: unknown setting{did_you_mean(path[-1], _siblings(fault['loc']))}"
    if path == ["net"] and not isinstance(value, dict):
        own = "a net of your own is added in the source (CONTRIBUTING.md)"
        return f"{name}: expected a configuration, as LeNetConfig(), got {type(value).__name__}; {own}"
    if fault["type"] == "union_tag_invalid":
        given = value.get("name") if isinstance(value, dict) else value
        return f"{name}.name: unknown net '{given}'{did_you_mean(str(given), NET_CONFIGS)}"
    if fault["type"] == "missing":
        return f"{name}: required"
    if fault["type"] == "value_error":  # a rule between settings names each of them
        return f"{name}: {rule(fault)}"
    return f"{name}: {rule(fault)}, got {value!r}"


def _siblings(location: tuple[str | int, ...]) -> list[str]:
    """The known settings at the level of an unknown one."""
    parts: dict[str, type[BaseModel]] = {**_PARTS, **NET_CONFIGS}
    part = parts.get(str(location[-2])) if len(location) > 1 else TrialConfig
    return list(part.model_fields) if part else []


def setting_names() -> list[str]:
    """Every dotted name that `--set` takes, for all nets."""
    parts = [*_PARTS.items(), *(("net", net) for net in NET_CONFIGS.values())]
    names = {f"{part}.{field}" for part, model in parts for field in model.model_fields} - {"net.name"}
    return sorted(names | TrialConfig.model_fields.keys() - {"net", *_PARTS})


def parse_settings(assignments: Sequence[str]) -> dict[str, Any]:
    """`["lr=0.1", "augment.flip=0.5"]` → dotted name → value. A name may be only its last part.

    Raises InputError with every malformed or unknown assignment.
    """
    known, settings, faults = setting_names(), {}, []
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        matches = [name for name in known if name == key or name.endswith("." + key)]
        if not equals or not key:
            faults.append(f"'{assignment}': expected key=value")
        elif not matches:
            faults.append(f"'{key}': unknown setting{did_you_mean(key, {n.rsplit('.', 1)[-1] for n in known})}")
        elif len(matches) > 1:
            faults.append(f"'{key}': could be {' or '.join(matches)}; write the whole name")
        else:
            settings[matches[0]] = _value(text)
    if faults:
        raise InputError("--set: " + ("\n  ".join([f"{len(faults)} faults", *faults]) if faults[1:] else faults[0]))
    return settings


def _value(text: str) -> Any:
    """The value of valid JSON (numbers, true, null), else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def setting_text(value: Any) -> str:
    """The text after `--set KEY=` that `parse_settings` reads as `value`."""
    return value if isinstance(value, str) and _value(value) == value else json.dumps(value)


def with_settings(config: TrialConfig, settings: Mapping[str, Any]) -> TrialConfig:
    """`config` with its values replaced by the dotted `settings`.

    A new `recipe.lr_policy` removes the settings of the old policy, which the new one would refuse.
    """
    if not settings:
        return config
    content = config.model_dump(mode="json")
    if settings.get("recipe.lr_policy", config.recipe.lr_policy) != config.recipe.lr_policy:
        for knob in ("gamma", "power", "step_iterations", "patience_epochs", "reference_iterations"):
            content["recipe"][knob] = None
    teachers = settings.get("recipe.distill", config.recipe.distill)
    if teachers != config.recipe.distill:
        content["recipe"]["distill_sha256"] = None
    if teachers == "none":
        content["recipe"] = {name: value for name, value in content["recipe"].items() if not name.startswith("distill")}
    for name, value in settings.items():
        part, _, field = name.rpartition(".")
        (content[part] if part else content)[field] = value
    return TrialConfig.parse(content, "--set")
