"""Training run, from a configuration to the best checkpoint."""

from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from lightning import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from deepesi.core.batch import Batch
from deepesi.core.contracts import InverseModel
from deepesi.core.unlabelled import Mixed, Unlabelled
from deepesi.data_gen.setups import channel_range
from deepesi.physics.cohort import Cohort
from deepesi.physics.template import Template
from deepesi.runtime.window_needs import WindowNeeds
from deepesi.training.criterion import criterion_of
from deepesi.training.data import RecordingStream
from deepesi.training.expected_responses import ExpectedResponses
from deepesi.training.failures import error_with_advice
from deepesi.training.initial import check_only_narrower, start_from
from deepesi.training.loggers import make_loggers
from deepesi.training.mixed import MixedRecordings
from deepesi.training.module import InverseTraining
from deepesi.training.pictures import ValidationPictures
from deepesi.training.pruning import start_from_strongest
from deepesi.training.real import RealRecordings
from deepesi.training.resume import checkpoint_of, rename_old_metrics
from deepesi.training.tasks.base import check_batches
from deepesi.training.trainer import check_trainer, device_of, make_trainer, resolve_max_steps
from deepesi.training.weights import described, load_network
from deepesi.utils.files import atomic

console = Console()
#: Groups of the configuration that a resumed run must share with the run it continues.
SETTINGS = ("seed", "data", "unlabelled", "task", "loss", "trainer")
#: Prints in the first of several processes only.
print_once = rank_zero_only(console.print)


def is_first_process() -> bool:
    """Whether this is the process of the training that prints and writes."""
    return rank_zero_only.rank == 0  # type: ignore[attr-defined] # Lightning sets it later


def chosen(group: str, *, _root_: DictConfig) -> str:
    """Resolver ``${chosen:model}``: name of the option chosen in a configuration group.

    A sweep needs the name of its folder before the first run, from its own configuration.
    """
    composed = _root_.get("hydra") or HydraConfig.get()
    return str(composed.runtime.choices[group])


OmegaConf.register_new_resolver("chosen", chosen, replace=True)


def build_model(config: DictConfig, template: Template) -> tuple[InverseModel, dict[str, Any]]:
    """Create the network of a configuration; also return the configuration with all sizes set."""
    for part in (config, config.get("member"), *config.get("members", [])):
        if part is not None and OmegaConf.is_missing(part, "n_dipoles"):
            part.n_dipoles = template.space.n_dipoles
    return hydra.utils.instantiate(config, _convert_="all"), plain(config)


def plain(config: Any) -> Any:
    """Convert a configuration node to plain Python values."""
    return OmegaConf.to_container(config, resolve=True)


def build_module(
    config: DictConfig, cohort: Cohort, model: InverseModel | None = None
) -> InverseTraining:
    """Create the training module: network, objective, schedule and settings of the run.

    `model` replaces the configured network.
    """
    torch.manual_seed(config.seed)
    settings = config.trainer
    if model is None:
        model, model_config = build_model(config.model, cohort.template)
    else:
        model_config = described(model)
    if config.export:
        check_exportable(model)
    check_windows(model.window_needs, config)
    heads = {
        split: [f"{head.name} ({head.fingerprint[:16]})" for head in cohort.of(split)]
        for split in ("train", "validation")
    }
    return InverseTraining(
        model,
        hydra.utils.instantiate(config.loss),
        model_config,
        cohort.template.space,
        settings.learning_rate,
        settings.weight_decay,
        settings.warmup_steps,
        settings.max_steps,
        {k: plain(config).get(k) for k in SETTINGS} | {"heads": heads},
        trained_on(config.data, cohort.template),
        hydra.utils.instantiate(config.get("task"), _convert_="all"),
    )


def check_exportable(model: InverseModel) -> None:
    """Refuse, before training, a network that cannot be exported.

    Raises:
        ValueError: The network is not exportable, or `HeadInput.to_json` fails.

    """
    if not model.exportable:
        raise ValueError(
            f"train: {type(model).__name__} has no form in ONNX. Leave the file out (export=false)."
        )
    for declaration in model.head_inputs:
        declaration.to_json()


def check_windows(needs: WindowNeeds, config: DictConfig) -> None:
    """Refuse, before training, windows of data or test sets that filters in the network cannot use.

    Raises:
        ValueError: Windows are shorter than the longest filter, or of another sampling rate.

    """
    compared = ("scenario", "strangers") if config.compare else ()
    for key in ("data", "unlabelled", *compared):
        part = config.get(key)
        if part is None:
            continue
        for own in (part, *(part.get("levels") or {}).values()):
            for n_times in _lengths(own):
                needs.check_length(n_times, f"train: a window of {key}=")
            if own.get("sfreq") is not None:
                needs.check_rate(own.sfreq, f"train: {key}=")


def _lengths(part: DictConfig) -> list[int]:
    """Window lengths that a configuration sets, samples."""
    lengths = part.get("n_times") or []
    return [lengths] if isinstance(lengths, int) else list(lengths)


def is_simulated(data: DictConfig) -> bool:
    """Whether the data of a configuration are simulated, with targets."""
    kind = hydra.utils.get_object(data["_target_"])
    return kind not in (RealRecordings, ExpectedResponses)


def trained_on(data: DictConfig, template: Template) -> dict[str, Any] | None:
    """Ranges of the training data, as fields of `deepesi.runtime.contract.TrainingRanges`.

    None for real recordings, which are not drawn from ranges.
    """
    if not is_simulated(data):
        return None
    lengths, sources = _lengths(data), hydra.utils.instantiate(data.sources, _convert_="all")
    band_hz = sources.kind.band(max(lengths), data.sfreq)
    return {
        "n_channels": list(channel_range(template, hydra.utils.instantiate(data.setups))),
        "n_times": [min(lengths), max(lengths)],
        "sfreq": float(data.sfreq),
        "band_hz": band_hz and list(band_hz),
        "snr_db": None if data.snr_db is None else [float(snr) for snr in data.snr_db],
    }


def initialize(config: DictConfig, module: InverseTraining, template: Template) -> None:
    """Load initial weights from another run, if the configuration names one.

    Raises:
        FileNotFoundError: There is no such run.
        ValueError: Two runs are given, or the weights do not fit (`start_from`,
            `start_from_strongest`).

    """
    if config.init_from is not None and config.pruned_from is not None:
        raise ValueError(
            "train: init_from uses all weights of a run, pruned_from the strongest ones. Give "
            "only one of them."
        )
    if config.init_from is not None:
        settings = module.identity["model"]
        path = Path(config.init_from)
        for difference in start_from(module.model, settings, path, template.space):
            print_once(f"init_from: {difference}; all weights fit.", style="yellow", soft_wrap=True)
    if config.pruned_from is not None:
        path = Path(config.pruned_from)
        wide, identity = load_network(path, template.space)
        check_only_narrower(path, identity["model"], module.identity["model"])
        head = template.montage_head(plain(config.data.setups.montages)[0])
        start_from_strongest(module.model, wide, head)


#: Added to the seed for the recordings without targets, so that they are drawn independently.
OTHER_STREAM = 1_000_000


def build_data(
    config: DictConfig, cohort: Cohort, module: InverseTraining, device: torch.device
) -> RecordingStream:
    """Create the streams of training and validation batches."""
    settings = config.trainer
    declarations = [*module.model.head_inputs, *module.loss.head_inputs]

    def stream(data: DictConfig, split: str, batch_size: int, seed: int = config.seed) -> Any:
        return hydra.utils.instantiate(data, _convert_="all")(
            heads=cohort.of(split),
            nominal_head=cohort.template,
            declarations=declarations,
            batch_size=batch_size,
            seed=seed,
            split=split,
            device=device_of(data.device, device),
        )

    train = stream(config.data, "train", config.data.batch_size)
    unlabelled = config.get("unlabelled")
    if unlabelled is not None:
        other = stream(unlabelled, "train", unlabelled.batch_size, config.seed + OTHER_STREAM)
        train = MixedRecordings(train, other)
    validation = stream(config.data, "validation", settings.validation_batch_size)
    for note in train.limits:
        print_once(note, style="yellow", soft_wrap=True)
    return RecordingStream(
        train, validation, settings.steps_per_epoch, settings.n_validation_batches
    )


def kind_of_batches(config: DictConfig) -> type:
    """Kind of the training batches of a configuration."""
    if config.get("unlabelled") is not None:
        if not is_simulated(config.data):
            raise ValueError(
                "train: data= must be simulated where data@unlabelled= gives the recordings "
                "without targets. Choose for example data=windows, and the real ones as unlabelled."
            )
        return Mixed
    return Batch if is_simulated(config.data) else Unlabelled


def fit(
    config: DictConfig, cohort: Cohort, run_dir: Path, model: InverseModel | None = None
) -> Path:
    """Train, and return the path of the best checkpoint.

    Args:
        config: Configuration of ``deepesi train``.
        cohort: Heads.
        run_dir: Folder for checkpoints, curves and configuration.
        model: Network to train instead of the configured one.

    """
    settings, folder = config.trainer, run_dir / "checkpoints"
    check_trainer(settings)
    for note in resolve_max_steps(settings):
        print_once(f"Training: {note}.", soft_wrap=True)
    module = build_module(config, cohort, model)
    check_batches(module.task, kind_of_batches(config))
    ckpt = checkpoint_of(config.ckpt, folder)
    if ckpt is None:
        initialize(config, module, cohort.template)
    if is_first_process():
        rename_old_metrics(run_dir, ckpt)
        with atomic(run_dir / "config.yaml") as partial:
            OmegaConf.save(config, partial, resolve=True)
    loggers, callbacks = make_loggers(config.logger, run_dir), list[Callback]()
    wandb = next((logger for logger in loggers if isinstance(logger, WandbLogger)), None)
    if wandb is not None:
        callbacks.append(ValidationPictures(wandb, settings.pictures, cohort.template.display))
    for logger in loggers[1:]:  # metrics.csv lies beside config.yaml
        # Without baselines: MLflow does not accept the titles as parameter names.
        logger.log_hyperparams({k: v for k, v in plain(config).items() if k != "baselines"})
    criterion = criterion_of(module.model, is_simulated(config.data))
    trainer, best, stopper = make_trainer(
        settings,
        folder,
        loggers,
        callbacks,
        criterion,
    )
    data = build_data(config, cohort, module, trainer.strategy.root_device)
    if settings.compile:
        module.model.compile(dynamic=True)  # any size; in place, so that names do not change
    n_weights = sum(p.numel() for p in module.model.parameters())
    print_once(
        f"Training {type(module.model).__name__}, {n_weights:,} weights, {settings.max_steps} steps"
    )
    try:
        trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    except Exception as error:
        advice = error_with_advice(error, folder, config.data.batch_size, settings.accumulate)
        if advice is None:
            raise
        raise advice from error
    if stopper is not None and stopper.stopped_epoch:
        print_once(
            f"Stopped early after step {trainer.global_step}: {settings.patience} validations "
            f"without a better {criterion}."
        )
    if wandb is not None:
        wandb.experiment.finish()  # so that the next run of a sweep starts a new run there
    return Path(best.best_model_path)
