"""FAISS on GPUs: one holds the whole index, several a share each; where none can, the CPU searches."""

import logging
from typing import Any

logger = logging.getLogger(__name__)

GPU_MOST = 2048
"""Most candidates that FAISS gives on a GPU."""


def to_gpu(faiss: Any, index: Any) -> Any | None:
    """Copy an index to all GPUs, or return None where that can't be, with one line in the log."""
    try:
        count = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
        if not count:
            raise RuntimeError("FAISS finds none")
        options = faiss.GpuMultipleClonerOptions()
        options.shard = True
        options.useFloat16 = True
        return faiss.index_cpu_to_all_gpus(index, co=options)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1][:200]
        logger.warning("search index: expected a GPU for it, none can be used (%s); searching on the CPU", reason)
        return None
