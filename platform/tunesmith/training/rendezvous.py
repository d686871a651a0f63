"""How the ranks of a group on one machine find each other without a port that others reach.

PyTorch's own store for this listens on all interfaces, whatever address it is given, and asks nobody who they are. A file does
where all ranks see one disk. Gloo's and NCCL's connections keep to the interface that ``GLOO_SOCKET_IFNAME`` and
``NCCL_SOCKET_IFNAME`` name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend


@dataclass
class ByFile(TorchConfig):
    """Ray Train's settings of a process group whose ranks meet in a file."""

    file: str = ""
    """Not there yet; of no use to a second group."""

    @property
    def backend_cls(self) -> Any:
        """What sets it up."""
        return _ByFile


class _ByFile(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """As Ray's, but for the place where the ranks meet."""
        worker_group.execute(_set_torch_distributed_env_vars)
        size = len(worker_group)
        made = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend=backend_config.backend,
                world_rank=rank,
                world_size=size,
                init_method=f"file://{backend_config.file}",
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(size)
        ]
        ray.get(made)
