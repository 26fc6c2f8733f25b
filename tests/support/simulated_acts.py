"""What tests have done on the simulated accelerator, in the process that has it."""

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import simulated_device as simulated
import torch
from simulated_device import DEVICE
from torch import Tensor, nn

from gindex import GradientIndex
from gindex.config import BuildConfig, ModelConfig, VectorConfig
from gindex.corpus.objectives import Objective
from gindex.curvature.basis import DenseBasis
from gindex.curvature.ekfac import LayerFactors
from gindex.curvature.fit import fit_covariances, fit_eigenvalues
from gindex.lab.attribution import Attribution, coded_scores, tracked_layers
from gindex.lab.refine.config import CgConfig, LissaConfig
from gindex.model.tensor_batches import tensor_batches
from gindex.model.tensor_tasks import Classification
from gindex.model.tracked_model import TrackedModel
from gindex.vectors.encoder import Encoder
from gindex.vectors.path import VectorPath
from gindex.vectors.projection import LayerShape, ProjectionSpec, make_projection

QUERY = {"prompt": "the compiler race", "completion": " bug the stack"}


def build(sources: list[str], folder: Path, config: BuildConfig) -> dict[str, int]:
    """Build on the device; return what crossed."""
    simulated.crossed.clear()
    GradientIndex.build(sources, folder, config)
    return dict(simulated.crossed)


def found(folder: Path, device: str) -> list[tuple[str, int, float]]:
    """Return the hits of an exact search."""
    hits = GradientIndex.open(folder, device=device).search(*QUERY.values(), k=10, exact=True).hits
    return [(hit.document_id, hit.part, float(hit.influence or 0)) for hit in hits]


def crossings(model: str, tracked: int) -> dict[str, Counter[str]]:
    """Return what crosses for a batch in each kind of pass, with so many of the model's layers tracked."""
    engine = TrackedModel.load(ModelConfig(name=model, device=DEVICE, dtype="float32"))
    tokens = [np.arange(1, n, dtype=np.uint32) for n in (9, 12, 12, 14)]
    batch, *more = engine.batches([Objective.counting(ids) for ids in tokens], np.arange(4), 64)
    assert not more
    layers = engine.table.layers[:tracked]
    bases = (
        {layer.source: DenseBasis(torch.eye(layer.inputs, device=DEVICE)) for layer in layers},
        {layer.name: DenseBasis(torch.eye(layer.outputs, device=DEVICE)) for layer in layers},
    )
    factors = {
        layer.name: LayerFactors(
            Q_A=bases[0][layer.source],
            Q_S=bases[1][layer.name],
            Lambda=torch.ones(layer.outputs, layer.inputs, device=DEVICE),
            mean_eigenvalue=1.0,
        )
        for layer in layers
    }
    shapes = [LayerShape(name=n, group=n, rows=f.Q_S.shape[1], columns=f.Q_A.shape[1]) for n, f in factors.items()]
    spec = ProjectionSpec(layers=tuple(shapes), dimension=512, seed=0)
    path = VectorPath(layers, factors, 0.1, make_projection(spec, engine.device))
    passes = {
        "covariances": partial(fit_covariances, layers, engine.task, [batch], 0),
        "eigenvalues": partial(fit_eigenvalues, layers, engine.task, [batch], bases, 0),
        "vectors": partial(Encoder(model=engine, path=path).encode, batch),
    }
    result = {}
    for name, act in passes.items():
        simulated.crossed.clear()
        act()
        result[name] = Counter(simulated.crossed)
    return result


def mix() -> None:
    """Add a tensor of the host to one of the device."""
    torch.ones(3, device=DEVICE) + torch.ones(3)


def attributed(device: str) -> dict[str, Tensor]:
    """Return what a classifier's attribution is on a device, of every kind, on the host."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(device)
    x, y = torch.randn(20, 4), torch.randint(3, (20,))
    task = Classification(model)
    documents = tensor_batches(x[:15].to(device), y[:15].to(device))
    queries = tensor_batches(x[15:].to(device), y[15:].to(device))
    attribution = Attribution.fit(task, tracked_layers(task, documents), documents)
    cg = attribution.iterative_inverse(documents, config=CgConfig(iterations=5))
    lissa = attribution.iterative_inverse(documents, config=LissaConfig(iterations=5))
    path = attribution.vector_path(VectorConfig(dimension=64), 0.1)
    q, v = attribution.vectors(path, queries).vectors, attribution.vectors(path, documents).vectors
    found = {
        "influence": attribution.influence(queries, documents),
        "self-influence": attribution.self_influence(documents),
        "cg": attribution.influence_by(cg, queries, documents),
        "lissa": attribution.influence_by(lissa, queries, documents),
        "dense": attribution.influence_by(attribution.dense_inverse(documents), queries, documents),
        "one bit": coded_scores(q, v, 1, path.projection.spec),
        "eight bits": coded_scores(q, v, 8, path.projection.spec),
        "second level": coded_scores(q, v, 8, path.projection.spec, mu=0.1),
    }
    return {name: scores.cpu() for name, scores in found.items()}
