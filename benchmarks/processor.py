"""Options of the speed benchmarks for device and threads."""

import argparse

import torch


def add_processor(parser: argparse.ArgumentParser, threads: int = 1) -> None:
    """Add ``--device`` and ``--threads`` with this default."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--threads", type=int, default=threads, help=f"CPU threads (default {threads})"
    )


def chosen_processor(arguments: argparse.Namespace) -> torch.device:
    """The chosen device; PyTorch then computes with the chosen number of threads."""
    torch.set_num_threads(arguments.threads)
    return torch.device(arguments.device)


def processor_name(device: torch.device) -> str:
    """Name of the GPU, or ``the CPU``."""
    return "the CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)


def wait(device: torch.device) -> None:
    """Wait until the device has finished, for correct timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
